"""What is known of providers by their names: the settings that hold their keys, and who has no budget."""

KEY_SETTINGS = {
    "alpha_vantage": "ALPHA_VANTAGE_API_KEY",
    "finnhub": "FINNHUB_API_KEY",
}

# Made up in this process: nobody meters its requests.
UNMETERED = frozenset({"simulated"})
