"""One run on many machines: what it will cost, the job that starts it, and the checks before it starts."""
