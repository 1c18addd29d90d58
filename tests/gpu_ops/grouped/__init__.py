"""Every grouped operator: its kernel against its torch reference."""
