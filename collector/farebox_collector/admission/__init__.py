"""Who may connect, how often, and with how much at once."""
