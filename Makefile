# The front door. What each word does is in make.py; without make, call: python make.py WORD
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export SERVE SLOW SITE_PORT LAB_PORT

class test book labs grade lab bench clean:
	@$(PYTHON) make.py $@

.DEFAULT_GOAL := help
help:
	@$(PYTHON) make.py --help

.PHONY: class test book labs grade lab bench clean help
