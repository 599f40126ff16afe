# Two commands on a bare Debian 12: `make demo` and `make test`. Each sets up what it needs; a second call is quick.
# As root. Without root: `sudo make demo`; README says what works without.

SHELL := /bin/bash
VENV  := .venv
PY    := $(VENV)/bin/python
STATE := .rackproof
BUILD_PACKAGES := gcc g++ libc6-dev make git ca-certificates python3-venv
RACK_PACKAGES  := systemd-container mmdebstrap squashfs-tools dnsmasq-base iproute2 util-linux e2fsprogs zstd cpio \
                  busybox-static openssh-client openssh-server apt-utils dpkg-dev gpg gpg-agent procps
TEST_PACKAGES  := postgresql openmpi-bin

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export RACKPROOF_HOME ?= $(CURDIR)/$(STATE)

.PHONY: demo test setup lint down clean
setup: $(VENV)/.ready

# Packages are asked of apt only when dpkg says that one is missing: a second call talks to nobody.
define apt_install
missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
if [ -n "$$missing" ]; then \
  [ "$$(id -u)" = 0 ] || { echo "make: not root, and these Debian packages are missing: $$missing"; echo "  next: sudo apt-get install $$missing"; exit 2; }; \
  echo "== apt: $$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
fi
endef

# `python3 -m venv` needs ensurepip, which Debian ships apart (python3-venv).
$(VENV)/.ready: pyproject.toml
	@python3 -c 'import ensurepip' 2>/dev/null || { $(call apt_install,python3-venv); }
	@test -x $(PY) || python3 -m venv $(VENV)
	@echo "== pip: rackproof and its tools"; $(PY) -m pip install -q --upgrade pip && $(PY) -m pip install -q -e '.[dev]'
	@touch $@

$(VENV)/.rack-packages: Makefile | $(VENV)/.ready
	@$(call apt_install,$(BUILD_PACKAGES) $(RACK_PACKAGES)); touch $@

$(VENV)/.test-packages: Makefile | $(VENV)/.ready
	@$(call apt_install,$(TEST_PACKAGES)); touch $@

demo: $(VENV)/.ready $(VENV)/.rack-packages
	@rackproof virtual demo

lint: $(VENV)/.ready
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	yamllint -s .
	ansible-lint --profile production --offline playbooks

# Real virtual machines come last and alone: what they are given in time is not shared with other tests.
test: $(VENV)/.ready $(VENV)/.rack-packages $(VENV)/.test-packages lint
	pytest -m "not rack" -n auto --dist loadfile
	pytest -m rack

down:
	rackproof virtual down

clean: down
	rm -rf $(VENV) $(STATE)
