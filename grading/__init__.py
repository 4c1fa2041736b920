"""The judge: ingests submissions, runs them apart, checks them from outside, records and tells."""
