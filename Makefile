# Everything that a fresh Debian 12 machine with root needs comes from here: `make demo` and `make test` install it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAB ?= vm
# `make test WHOLE=yes` leaves nothing out: what takes minutes in emulated VMs, too.
WHOLE ?=

# What the machine itself lends: the rest (QEMU, CRIU, Docker, runc, WireGuard) comes out of the lab's own Debian tree.
PACKAGES := mmdebstrap e2fsprogs iproute2 util-linux openssl openssh-client debian-archive-keyring python3-venv
# Independent judges of the evidence, of ACPI tables and of shell files; what misses one says so and is skipped.
JUDGES := strace nftables tcc libvirt-clients-qemu python3-libvirt python3-lxml python3-cryptography acpica-tools shellcheck

.PHONY: demo test check setup clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo [LAB=netns]  set up, and migrate a Redis between two hosts of a lab"
	@echo "make test [WHOLE=yes]  set up, and run what checks Sealift; WHOLE=yes leaves nothing out"
	@echo "make check             lint, types, import rules, shell files, unit tests"
	@echo "make setup             install what is missing, into .venv"

demo: setup
	@$(BIN)/sealift demo --lab $(LAB)

# Figures in seconds are held against a clock that other programs share, and two processes that test at once share it, too:
# what fails is run once more, by itself, and has to pass then. Each process has a lab of its own up, in a network of its own.
AGAIN := --last-failed --last-failed-no-failures none
SAMPLE := $(if $(WHOLE),,-m "not whole")
ALONE := -m "alone$(if $(WHOLE),, and not whole)"
NOT_ALONE := -m "not alone$(if $(WHOLE),, and not whole)"
# What is run between two versions of Docker as well.
BOTH := tests/integration/test_docker_versions.py
# Two processes, each with whole files: in integration each has a lab and a network of its own.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
test: setup judges tree images check
	@$(BIN)/python -m pytest $(NOT_ALONE) $(TWO) tests/integration || $(BIN)/python -m pytest $(NOT_ALONE) $(AGAIN) tests/integration
	@$(BIN)/python -m pytest $(ALONE) tests/integration || $(BIN)/python -m pytest $(ALONE) $(AGAIN) tests/integration
	@SEALIFT_DOCKER=26:28 $(BIN)/python -m pytest $(SAMPLE) -n 2 $(BOTH) || SEALIFT_DOCKER=26:28 $(BIN)/python -m pytest $(SAMPLE) $(AGAIN) $(BOTH)
	@$(BIN)/python -m pytest $(SAMPLE) tests/system || $(BIN)/python -m pytest $(SAMPLE) $(AGAIN) tests/system

check: $(VENV)/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --python-version 3.10 sealift_agent
	@$(BIN)/lint-imports
	@sh setup/lint-shell
	@$(BIN)/python -m pytest -m "not alone" -n 2 --dist loadfile tests/unit || $(BIN)/python -m pytest -m "not alone" $(AGAIN) tests/unit
	@$(BIN)/python -m pytest -m alone tests/unit

setup: packages $(VENV)/installed

# What the lab's hosts are made of. Some unit tests look into it; without root they are skipped.
.PHONY: tree
tree:
	-@$(BIN)/python -c "from sealift.machine import recipe, tree; [tree.build_tree(each, say=print) for each in recipe.RECIPES.values()]"

# What the lab's containers run. A test that has a network of its own could not fetch them.
.PHONY: images
images: tree
	-@$(BIN)/python -c "from sealift.lab import images; [images.build(each, say=print) for each in images.IMAGES.values()]"
	-@$(BIN)/python -c "from benchmarks.compat import images, stock; stock.build('small', images.IMAGES['small'], say=print)"

.PHONY: judges
judges:
	-@sh setup/packages $(JUDGES)

.PHONY: packages
packages:
	@sh setup/packages $(PACKAGES)

$(VENV)/installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
