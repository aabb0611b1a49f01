"""What every question needs: tokens, a daemon, clients, rounds and reports."""
