"""PET and shared operators: kernels with their wrappers, and the torch reference of each."""
