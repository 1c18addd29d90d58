"""Real sentences for the engine's tests, from the test split of CLINC150 (CC BY 3.0)."""

SENTENCES = (
    "ya",
    "where am i",
    "female voice please",
    "give me a joke about water",
    "now reset your factory settings",
    "what kind of plug is used in england",
    "what is the name of the place you work at",
    "can i reserve tables at the new york restaurant",
    "check meeting room availability between one and three pm",
    "i was trying to use my card to get food at publix but it got declined",
    "find me a place to stay in jacksonville near the stadium from january 1st through 3rd",
    "i need to rent a car from traveler's rent a car downtown and make it from friday the 6th to "
    "monday the 9th cheapest available",
)
"""From the shortest to the longest."""
