"""What leaves a site costs privacy: the accountant, the ledger, the noise."""
