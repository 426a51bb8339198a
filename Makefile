# The front door. CMake and Ninja do the work, in build/.
#   make           build everything          make check    build and run the tests
#   make demo      train for a minute, then hear a story
#   make check-cuda  the CUDA build (needs nvcc), its tests, and whether a GPU ran any
#   make bench     build and measure: the machine and Tilia on it, then every figure beside its peer, as a table
#                  (PYTHON=../tilia-peers/bin/python after `make peers`; QUICK=1 for one round; goes on after Ctrl-C)
#   make peers     a virtual environment with the peers, versions pinned: PEERS=../tilia-peers
#   make install   PREFIX=/usr/local DESTDIR=
# Debian packages that are missing are installed first (tools/setup), if this user may.

BUILD  ?= build
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
CONFIG ?=
# of bench: a Python with the peers, the data they are measured on, megabytes of each text
PYTHON ?= python3
DATA   ?= $(or $(TILIA_DATA),../shared/data)
PEER_MB ?= 100
PEERS  ?= ../tilia-peers
QUICK  ?=

.DEFAULT_GOAL := all
.PHONY: all demo check check-cuda bench peers install uninstall clean format setup configure

setup:
	@tools/setup

configure: setup
	@cmake -S . -B $(BUILD) $$(test -f $(BUILD)/CMakeCache.txt || ! command -v ninja >/dev/null || echo -G Ninja) \
	    -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CONFIG) >$(BUILD).log 2>&1 || { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@mv $(BUILD).log $(BUILD)/configure.log

all: configure
	@cmake --build $(BUILD) -j $(JOBS)

demo: configure
	@cmake --build $(BUILD) -j $(JOBS) --target tilia
	$(BUILD)/tilia demo

check: all
	@tools/check_layers
	@cd $(BUILD) && ctest -j 2 --output-on-failure

check-cuda:
	@tools/check_cuda

bench: all
	@for what in gemm attention train generate overhead kv-cache tokenizer; do $(BUILD)/tilia bench $$what || exit 1; done
	@$(PYTHON) bench/table.py $(BUILD)/tilia $(if $(QUICK),--quick)
	@if $(PYTHON) -c 'import tokenizers, tiktoken' 2>/dev/null && test -f $(DATA)/gpt2/vocab.json; then \
	    $(PYTHON) bench/tokenizer_peers.py $(BUILD)/bench/tokenizer $(BUILD)/tilia $(DATA) --mb $(PEER_MB) --train-mb $(PEER_MB); \
	else echo "tokenizers against their peers: PYTHON=one with tokenizers and tiktoken, DATA=folder with gpt2/ and texts"; fi
	@echo "llama.cpp: bench/llama_peers.py (it tells how in its first lines)"

peers:
	@python3 -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -r bench/requirements.txt
	@echo "now: make bench PYTHON=$(PEERS)/bin/python"

install: configure
	@cmake --build $(BUILD) -j $(JOBS) --target tilia tilia_static tilia_shared
	DESTDIR=$(DESTDIR) cmake --install $(BUILD) --prefix $(PREFIX)

uninstall:
	@test -f $(BUILD)/install_manifest.txt || { echo "nothing to remove: no $(BUILD)/install_manifest.txt"; exit 1; }
	@while read -r file; do rm -fv "$(DESTDIR)$$file"; done <$(BUILD)/install_manifest.txt
	@rmdir "$(DESTDIR)$(PREFIX)/include/tilia" 2>/dev/null || true

clean:
	rm -rf $(BUILD)

format:
	@git ls-files '*.c' '*.h' '*.cpp' '*.cu' | xargs -r clang-format -i
