# make demo and make test do all their own set-up on a fresh Debian 12 with
# Go, git, make and gcc, as root.

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

TOOL := go tool -modfile=internal/tools/go.mod
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
PACKAGES := qemu-system-x86 qemu-utils busybox-static iproute2 kmod libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients zstd
# Packages whose tests measure what the kernel and QEMU do, and those that run QEMUs.
MEASURE := ./bench/lab ./bench/wan/... ./bench/wanem ./cmd/longhaul/e2e
KERNEL := ./bench/... ./cmd/longhaul/... ./internal/image/... ./internal/nbd/... ./internal/qemu/...
PREFIX ?= /usr/local
FUZZTIME ?= 30s
MOVES ?= 50
SEED ?= 1

.PHONY: build
build: ## static binaries in bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/longhauld ./cmd/longhaul

.PHONY: setup
setup: ## the Debian packages that demo, test and bench need
	have=$$(dpkg-query -W -f='$${db:Status-Abbrev} $${Package}\n' $(PACKAGES) 2>/dev/null | awk '/^ii/{print $$2}' || true)
	need=$$(comm -23 <(printf '%s\n' $(PACKAGES) | sort) <(printf '%s\n' $$have | sort))
	[ -z "$$need" ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$need; }
	apt-cache show linux-image-cloud-amd64 > /dev/null 2>&1 || apt-get update -qq # the guest's kernel
	go mod download

.PHONY: demo
demo: setup build ## move a real VM between two sites over an emulated WAN, and show it
	bin/longhaul demo $(DEMOFLAGS)

# Two parts go at a time, the longest first, and in each one package after another: where
# one waits, the other has the processors. What measures rates and delays comes last,
# alone. Tests that run in synctest have one processor each: there one goroutine runs
# after another, and Go 1.26 with -race crashes now and then when timers that are due fire
# on two processors of one bubble (golang.org/issue/78156); the race detector needs no
# second processor to see a race. cmd/longhauld has one bubble with one timer.
PARTS := test-gateway test-l2ext test-tunnel test-plain test-kernel test-rest
RACE := go test -race -shuffle=on -timeout 30m
ALONE := GOMAXPROCS=1 $(RACE) -parallel 4

.PHONY: test
test: setup build test-static ## every test: unit, race, lint, vet, staticcheck, kernel, real QEMU
	go build -race ./... # what all tests share, before two parts compile it at once
	$(MAKE) --no-print-directory -j 2 --output-sync $(PARTS)
	$(MAKE) --no-print-directory test-measure

.PHONY: test-static test-measure $(PARTS)
test-measure $(PARTS): export LONGHAUL_NO_SKIP = 1

# They use the object files of the static build, as the tests that build programs do.
test-static: export CGO_ENABLED = 0
test-static: export GOFLAGS = -trimpath
test-static:
	go vet ./...
	GOOS=darwin go vet ./...
	go vet -C bench/wan/wireguard ./...
	$(TOOL) staticcheck ./...
	go mod tidy -diff

# What takes 12 GB, or ten times as long, with -race, or counts allocations; and what
# goes on for long in one goroutine, in which there is no race to find, or in a simulation
# of whose kind others run with -race.
test-plain: export CGO_ENABLED = 0
test-plain: export GOFLAGS = -trimpath
test-plain: export GOMAXPROCS = 1
test-plain:
	go test -shuffle=on -timeout 30m ./dedup -adversary.pages 400000
	go test -run 'Lean|AnyWorld|GivesDearPathBack|StreamsFollowTheLine' ./gateway
	go test -run Hole ./tunnel
	go test -shuffle=on ./tunnel/congestion ./internal/qemu/vmstream

test-gateway test-tunnel:
	$(ALONE) ./$(@:test-%=%)

test-l2ext: # its labs are real networks, one at a time
	GOMAXPROCS=1 $(RACE) ./l2ext
	$(RACE) -p 1 $$(go list ./l2ext/... | grep -v '/l2ext$$')

test-kernel:
	$(RACE) -p 1 $$(go list $(KERNEL) | grep -vxFf <(go list $(MEASURE)))

test-rest:
	# The nested module, under the one name that lets it see quic-go's inside.
	(cd tunnel/congestion/ccslot && go vet ./... && go mod tidy -diff && go tool -modfile=../../../internal/tools/go.mod staticcheck ./... && go test -race -shuffle=on ./...)
	rest=$$(go list ./... | grep -vxFf <(go list $(KERNEL) ./l2ext/... ./gateway ./tunnel))
	bubbles=$$(go list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' $$rest | awk '/ testing\/synctest( |$$)/ {print $$1}' | grep -v '/cmd/longhauld$$')
	$(ALONE) -p 1 $$bubbles
	$(RACE) -p 1 $$(grep -vxFf <(echo "$$bubbles") <<< "$$rest")

test-measure:
	$(RACE) -p 1 $(MEASURE)

.PHONY: adversary
adversary: ## 10^7 pages of hostile guests through stores with planted errors, about ten minutes
	go test -run Adversary -v -timeout 3h ./dedup -adversary.pages 10000000 -adversary.seed $(SEED) | grep -v '^ *\(===\|--- PASS: TestAdversary/\)'

.PHONY: bench
bench: setup ## all benchmarks, as benchstat reads them, into bench/results
	go test -run '^$$' -bench . -benchmem -count 6 ./... | tee bench/results/$$(date +%Y-%m-%d)-$$(git rev-parse --short HEAD).txt

# The streams are recorded once, in about 25 minutes; REDUCTIONFLAGS=-short needs
# ten less. Its own packages on top of those of setup.
.PHONY: bench-reduction
bench-reduction: PACKAGES += debootstrap e2fsprogs
bench-reduction: setup ## what reduction leaves of streams of real guests, beside zstd and lz4, into bench/results
	mkdir -p bin
	out=bench/results/reduction-$$(date +%Y-%m-%d).txt
	echo '# make bench-reduction REDUCTIONFLAGS="$(REDUCTIONFLAGS)"' > bin/reduction.txt
	go run ./bench/reduction/table $(REDUCTIONFLAGS) | tee -a bin/reduction.txt
	mv bin/reduction.txt $$out

# About 35 minutes for all; WANFLAGS="-rows 500M -peers tcp-bbr,longhaul" for a
# part. It wants an idle machine.
.PHONY: bench-wan
bench-wan: ## how much of a long line TCP, quic-go, wireguard-go and Longhaul take, into bench/results
	go build -C bench/wan/wireguard -o $(CURDIR)/bin/bench-wireguard .
	go build -o bin/bench-wan ./bench/wan/table
	bin/bench-wan -wireguard bin/bench-wireguard $(WANFLAGS) | tee bin/wan.txt
	mv bin/wan.txt bench/results/wan-$$(date +%Y-%m-%d)-$$(git rev-parse --short HEAD).txt

.PHONY: bench-layer2
bench-layer2: setup ## moves of a stand-in VM and of a real guest among three sites: loss, stalls, bindings, into bench/results
	mkdir -p bin
	{ echo "# make bench-layer2; $$(date -u +%FT%TZ), $$(git rev-parse --short HEAD), $$(nproc) CPUs, load $$(cut -d' ' -f1-3 /proc/loadavg)"
	  go test -run '^$$' -bench 'Move$$/./trigger=all|MoveTCP' -benchtime $(MOVES)x -timeout 60m ./l2ext
	  go test -run '^$$' -bench 'Move$$/./trigger=(rarp|resume|frame)|Bindings' -benchtime 10x -timeout 60m ./l2ext
	  go test -run '^$$' -bench GuestMoves -benchtime 10x -timeout 60m ./cmd/longhaul/e2e
	  echo "# load at the end $$(cut -d' ' -f1-3 /proc/loadavg)"
	} 2>&1 | tee bin/layer2.txt
	! grep -q '^FAIL' bin/layer2.txt
	mv bin/layer2.txt bench/results/layer2-$$(date +%Y-%m-%d).txt

# LAYER2FLAGS picks rows and modes, such as "-rows cable -modes vxlan,direct". It wants an idle machine.
.PHONY: bench-layer2-modes
bench-layer2-modes: ## what a segment carries in each mode, beside plain VXLAN and wireguard-go, and a storm beside a bulk flow, into bench/results
	go build -C bench/wan/wireguard -o $(CURDIR)/bin/bench-wireguard .
	go build -o bin/bench-layer2 ./bench/layer2/table
	bin/bench-layer2 -wireguard bin/bench-wireguard $(LAYER2FLAGS) > bin/layer2-modes.txt
	bin/bench-layer2 -storm $(LAYER2FLAGS) >> bin/layer2-modes.txt
	cat bin/layer2-modes.txt
	mv bin/layer2-modes.txt bench/results/layer2-modes-$$(date +%Y-%m-%d).txt

.PHONY: fuzz
fuzz: ## every fuzz target, FUZZTIME each
	go list -f '{{.Dir}}' ./... | while read -r dir; do
	  for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go 2>/dev/null | sed 's/^func //' | sort -u); do
	    echo "== $${dir#$$PWD/} $$target"
	    (cd "$$dir" && go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x .)
	  done
	done

.PHONY: vuln
vuln: ## known vulnerabilities; needs the online database
	$(TOOL) govulncheck ./...

.PHONY: install
install: build ## binaries, unit and an example config below PREFIX and /etc
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin bin/longhauld bin/longhaul
	install -D -m 0644 -t $(DESTDIR)/etc/systemd/system deploy/systemd/longhauld.service
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/longhaul deploy/config/*.yaml

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20
