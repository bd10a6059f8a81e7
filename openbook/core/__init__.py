"""Values, errors, JSON, files, locks and settings: what every other package stands on."""
