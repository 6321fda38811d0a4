"""The demo lineup: small models, trained from a synthetic language, that show the mechanism."""
