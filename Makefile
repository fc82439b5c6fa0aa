# What people and CI run. Every target does its own set-up on a fresh Debian machine (scripts/setup).

export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)
# What no program switches on yet, and must hold all the same.
FEATURES := --features onionring-node/tokio
LOADGEN := $(TARGET)/release/onionring-loadgen
# Networks of tests wait more than they work: one more at a time than there are cores.
export RUST_TEST_THREADS ?= $(shell expr $$(nproc) + 1)

.PHONY: help demo test lint bench baseline counts soak setup release

help:
	@echo 'make demo   a private network on loopback, all of it onionring: 3 authorities, 5 relays, a proxy; ARGS=--keep keeps it up'
	@echo 'make test   everything that must hold, lint included (.ci/run calls this)'
	@echo 'make lint   formatting, clippy, docs, licences and duplicate dependencies, proto stays free of I/O'
	@echo 'make bench  what the pieces cost (a table in target/bench.md), shards in memory and a model of many, CPU seconds per'
	@echo '            GiB: of the bare minimum, then of onionring and stock tor as the middle relay in turn; both as an authority and as a client'
	@echo 'make baseline  count instructions anew, for make test to hold later changes against'
	@echo 'make soak   the full matrix and the long simulations (hours)'
	@echo 'make release  the programs, in target/release'

demo: release
	$(LOADGEN) demo $(ARGS)

bench: release counts
	cargo bench --locked --package onionring-benches --bench '*'
	cargo build --release --locked --package onionring-benches
	$(TARGET)/release/table $(TARGET)/criterion >$(TARGET)/bench.md
	@cat $(TARGET)/bench.md
	$(TARGET)/release/ciphers
	$(TARGET)/release/engine --model
	$(TARGET)/release/engine --rate 2000
	$(TARGET)/release/engine --rate 50000
	$(TARGET)/release/floor
	$(LOADGEN) bench middle $(ARGS)
	$(LOADGEN) bench authority
	$(LOADGEN) bench proxy
	$(LOADGEN) bench bootstrap

# Instructions of framing, queues, rings and parsing: noise does not show in them.
counts: setup
	cargo run --release --locked --package onionring-benches --bin counts -- check benches/baseline.toml

baseline: setup
	cargo run --release --locked --package onionring-benches --bin counts -- update benches/baseline.toml

test: lint counts
	cargo test --workspace $(FEATURES) --locked
	ONIONRING_RELAY=$(abspath $(TARGET))/debug/onionring-relay \
	    cargo test --manifest-path proto/oracle/Cargo.toml --target-dir $(TARGET)/oracle --locked

# Tests marked `ignored` are those that take too long for every change.
soak: setup
	cargo test --workspace $(FEATURES) --locked --profile soak -- --include-ignored
	ONIONRING_RELAY=$(abspath $(TARGET))/soak/onionring-relay \
	    cargo test --manifest-path proto/oracle/Cargo.toml --target-dir $(TARGET)/oracle --locked -- --include-ignored

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace $(FEATURES) --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace $(FEATURES) --no-deps --locked
	scripts/check-sans-io
	scripts/check-dependencies

release: setup
	cargo build --release --locked --package onionring-relay --package onionring-proxy --package onionring-dirauth \
	    --package onionring-loadgen

setup:
	@scripts/setup
