# `make` alone lists the targets.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
.PHONY: help demo demo-portal test soak lint proto bench bench-full clean setup setup-tests

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## install what is missing, sign real PDFs with three software tokens, have others verify them
	@.venv/bin/paraph demo

demo-portal: setup ## the web portal on this machine, with three people, a business and a desk; until Ctrl-C
	@$(PYTHON) deploy/demo/portal.py

test: setup-tests ## every test, against real tokens and a real daemon; about a quarter of an hour
	$(call asked,-m "not alone" -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0)
	sync  # what the others wrote is not on its way to the disk any more while the rest measures
	$(call asked,-m alone)

# Many tests hold answers to their deadlines, and machines have other work: what fails (1; no other exit code) is asked once
# more, by itself, and has to pass then. Both runs are shown.
asked = $(PYTHON) -m pytest $(1) || { [ $$? -eq 1 ] && $(PYTHON) -m pytest --last-failed --last-failed-no-failures none; }

soak: setup-tests ## one full figure: make soak PART=leaks; without PART: list them
	$(PYTHON) -m tests.soak $(PART)

lint: setup-tests ## ruff and mypy --strict
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

proto: setup-tests ## generate signer/v1 from proto/ again
	$(PYTHON) -m grpc_tools.protoc -Isigner/v1=proto --python_out=. --grpc_python_out=. --pyi_out=. \
		signer/v1/signing.proto signer/v1/operator.proto

bench: setup-tests ## the quick form of all benchmarks, under 6 minutes
	$(PYTHON) -m bench quick

bench-full: setup-tests ## the full form, under 25 minutes
	$(PYTHON) -m bench full

clean: ## remove var/ and caches; .venv stays
	rm -rf var build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

setup:
	@deploy/setup

setup-tests:
	@deploy/setup tests
