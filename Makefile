# Two commands on a bare Debian 12: `make demo` and `make test`. Each sets up what it needs; a second call is quick.
# As root. Without root: `sudo make demo`; README says what works without.

SHELL := /bin/bash
VENV  := .venv
PY    := $(VENV)/bin/python
STATE := .rackproof
BUILD_PACKAGES := gcc g++ libc6-dev make git ca-certificates python3-venv
RACK_PACKAGES  := systemd-container mmdebstrap squashfs-tools dnsmasq-base iproute2 util-linux e2fsprogs zstd cpio \
                  busybox-static openssh-client openssh-server apt-utils dpkg-dev gpg gpg-agent procps \
                  openssl fdisk dosfstools mtools nvme-cli mdadm efibootmgr
# libpmix-dev: Slurm's PMIx plugin opens libpmix.so, which Debian has in no other package
TEST_PACKAGES  := postgresql openmpi-bin slurmctld slurmd slurm-client munge libpmix-dev etcd-server prometheus chromium \
                  nginx-light nftables curl ipxe ipxe-qemu qemu-system-x86 seabios shellcheck
SLOW_PACKAGES  := ovmf gdisk kmod
KUBERNETES_BUILD_PACKAGES := golang-1.19-go golang-github-modern-go-reflect2-dev gcc make rsync jq dpkg-dev etcd-server

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export RACKPROOF_HOME ?= $(CURDIR)/$(STATE)

.PHONY: demo test test-slow docs figures setup lint kubernetes-binaries down clean
setup: $(VENV)/.ready

# Packages are asked of apt only when dpkg says that one is missing: a second call talks to nobody. None starts a service
# as it is installed (policy-rc.d, in invoke-rc.d(8)): the tests start their own, with configurations of their own.
POLICY := /usr/sbin/policy-rc.d
define apt_install
missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
if [ -n "$$missing" ]; then \
  [ "$$(id -u)" = 0 ] || { echo "make: not root, and these Debian packages are missing: $$missing"; echo "  next: sudo apt-get install $$missing"; exit 2; }; \
  [ -e $(POLICY) ] || { trap 'rm -f $(POLICY)' EXIT; trap 'exit 130' INT TERM; printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod 755 $(POLICY); }; \
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

$(VENV)/.slow-packages: Makefile | $(VENV)/.ready
	@$(call apt_install,$(SLOW_PACKAGES)); touch $@

demo: $(VENV)/.ready $(VENV)/.rack-packages
	@rackproof virtual demo

# Side by side: mypy and ansible-lint take most of it, on one core each.
lint: $(VENV)/.ready
	@$(MAKE) --no-print-directory --jobs=2 --output-sync lint-python lint-playbooks

lint-python: $(VENV)/.ready
	ruff check .
	ruff format --check .
	mypy
	lint-imports

lint-playbooks: $(VENV)/.ready
	yamllint -s .
	ansible-lint --profile production --offline playbooks

# Two tests a core: they wait for processes, deadlines and API servers about a third of their time. On 2 cores 5,017
# tests took 23:42 with 2 workers and 18:14 with 4 (22 minutes of user time, 8 of the kernel's).
WORKERS ?= $(shell echo $$((2 * $$(nproc))))

# Real virtual machines come last, two sessions of them: they wait for machines more than they compute.
test: $(VENV)/.ready $(VENV)/.rack-packages $(VENV)/.test-packages lint
	@$(PY) tests/helm_program.py "$${RACKPROOF_CACHE:-$$RACKPROOF_HOME/cache}/helm"
	pytest -m "not rack and not slow" -n $(WORKERS) --dist loadfile
	pytest -m "rack and not slow" -n 2 --dist loadfile

# What takes minutes each: whole machines under emulation, images built twice.
test-slow: $(VENV)/.ready $(VENV)/.rack-packages $(VENV)/.test-packages $(VENV)/.slow-packages
	pytest -m slow

# The documentation as a site, in site/: it fetches nothing from anywhere.
docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

# The figures of the README's table on gates, location and cables. Some ten minutes.
figures: $(VENV)/.ready
	$(PY) benchmarks/gates.py
	$(PY) benchmarks/locate.py
	$(PY) benchmarks/fabric.py

# The control plane that tests and virtual racks use, from Debian's source package: a quarter of an hour, once. Without
# it, and without KUBEBUILDER_ASSETS, what needs it is skipped and says so.
kubernetes-binaries: $(VENV)/.ready
	@$(call apt_install,$(KUBERNETES_BUILD_PACKAGES))
	@$(PY) -m toolkit.virtual.control_plane.build

down:
	rackproof virtual down

clean: down
	rm -rf $(VENV) $(STATE)
