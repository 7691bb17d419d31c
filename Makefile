# Everything is built and run by the Go toolchain; nothing is installed globally.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Seconds for each fuzz target of `make fuzz`.
FUZZTIME ?= 60s

# Tools, pinned; run through `go run`, so that they need no place on the PATH.
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.1

.PHONY: help build demo test check oracle bench fuzz guards cross clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## Build peerd, peerctl and peergate into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

demo: build ## Two peers, a gateway, a guest and a container; ONCE=1 checks and exits
	$(GO) run ./test/demo $(if $(ONCE),-once)

test: ## All tests, with the race detector where there is a C compiler
	$(GO) run ./test/report

check: ## Format, vet, lint and the house's rules
	@out=$$($(GO) run $(GOFUMPT) -l cmd pkg gateway seccomp test examples); \
		if [ -n "$$out" ]; then echo "not formatted (gofumpt):"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) test ./test/arch

oracle: ## Compare fuel with wasmtime (needs a C compiler; a module of its own)
	cd test/oracle && $(GO) test ./...

bench: build ## Measure; writes out/bench.json and prints a table
	$(GO) run ./test/bench -out out/bench.json

fuzz: ## Every fuzz target for FUZZTIME each
	$(GO) run ./test/report -fuzz $(FUZZTIME)

guards: ## Take each guard away and see its test go red
	$(GO) run ./test/guards

cross: ## Build for every supported platform
	@for p in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do \
		echo "peerctl peerd peergate $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./cmd/peerctl && \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./cmd/peerd && \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./cmd/peergate || exit 1; done
	@for p in windows/amd64 windows/arm64; do echo "peerctl $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./cmd/peerctl || exit 1; done

clean: ## Remove what was built
	rm -rf bin out
