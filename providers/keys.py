"""What is known of providers by their names: the settings of their keys, and whose prices are made up."""

KEY_SETTINGS = {
    "alpha_vantage": "ALPHA_VANTAGE_API_KEY",
    "finnhub": "FINNHUB_API_KEY",
}

# Whose prices are made up in this process, for the symbols with this prefix and for no others.
SIMULATED = "simulated"
SIMULATED_PREFIX = "SIM-"
# Nobody meters its requests.
UNMETERED = frozenset({SIMULATED})
