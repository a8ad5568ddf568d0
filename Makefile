# Every target does all of its own set-up: Go and its module proxy are enough.
MODULES  := proto pkg services/fetcher services/dedup services/sender services/simulator services/collector
PROGRAMS := collector fetcher dedup sender simulator
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT   ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X defenderiot/pkg/telemetry.version=$(VERSION) -X defenderiot/pkg/telemetry.commit=$(COMMIT) \
            -X main.version=$(VERSION) -X main.commit=$(COMMIT)
FUZZTIME ?= 10s
IMAGE_TAG ?= latest
# Where programs go, and build tags: for tests.
BIN      ?= bin
TAGS     ?=
# The version is stamped by LDFLAGS; asking git once more for each program fails in a checkout of another user.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# What the compiler optimises for: where the programs spent their time in the benchmark.
PROFILE  := services/collector/cmd/bench/programs.pprof

.PHONY: build test race lint fuzz bench bench-peers profile e2e fault fault-race fault-soak receivers-test rules-test names-test demo images compose-valid compose-test compose-soak cluster-fault clean

## build: static binaries in bin/
# One go build for all of them: their links run side by side.
build:
	@mkdir -p $(BIN)
	@echo "build $(PROGRAMS)"
	@CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -pgo $(CURDIR)/$(PROFILE) -ldflags '$(LDFLAGS)' -o $(BIN)/ $(foreach p,$(PROGRAMS),./services/$(p)/cmd/$(p))

## test: unit tests and tests on the embedded server, a few minutes
# Tests mostly wait for time-outs and acknowledgements, hence more at a time than there are cores.
test:
	@go test -parallel 4 -timeout 10m $(foreach m,$(MODULES),./$(m)/...)

## race: the same under the race detector
race:
	@go test -race -parallel 4 -timeout 20m $(foreach m,$(MODULES),./$(m)/...)

## lint: gofmt, go vet, staticcheck, and tidy modules
lint:
	@unformatted=$$(gofmt -l $(MODULES)); test -z "$$unformatted" || { echo "not formatted: $$unformatted"; exit 1; }
	@go vet $(foreach m,$(MODULES),./$(m)/...)
	@go vet -tags e2e,faultpoints,nextmajor ./services/collector/...
	@cd pkg && go tool staticcheck $(foreach m,$(MODULES),../$(m)/...)
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy -diff >/dev/null) || { echo "$$m: run GOWORK=off go mod tidy"; exit 1; }; done

## fuzz: every fuzz test for FUZZTIME
fuzz:
	@for m in $(MODULES); do (cd $$m && for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "fuzz $$pkg $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg || exit 1; done; done) || exit 1; done

## bench: all benchmark figures of the README, with the machine they were taken on
bench: build
	@go run ./services/collector/cmd/bench

## bench-peers: the sender alone beside Debian's rsyslog, the same lines to the same kind of TLS endpoint, in one run
bench-peers: build
	@deploy/test/receivers-install.sh bin/receivers
	@go run ./services/collector/cmd/bench -peers bin/receivers

## profile: take PROFILE anew; the figures of this run do not count
profile: build
	@mkdir -p .bench && go run ./services/collector/cmd/bench -profiles .bench -only pipeline
	@go run ./services/collector/cmd/bench -profiles .bench -only source
	@go tool pprof -proto .bench/pipeline.pprof .bench/source.pprof >$(PROFILE).new && mv $(PROFILE).new $(PROFILE)

## e2e: the real binaries against the simulator, with kill -9 and broken connections; the table is what each fault has cost. E2EFLAGS=-short leaves the longest out
E2E := E2E_TABLE=$(CURDIR)/bin/faults.txt go test -tags e2e -count 1 ./services/collector/e2e
E2EFLAGS ?=
e2e:
	@mkdir -p bin
	@$(E2E) -timeout 20m $(E2EFLAGS)
	@cat bin/faults.txt

## fault: the fault tests among them
FAULTS := Damaged|Poison|NewerMajor|Restored|Clock|Killed|Stopped|Paused|Standby|Endpoint|Azure|Setup|Tokens|OddRows|Separate|Soak|FullDisk|ReadOnlyDisk|StorageLimit|Permission
fault:
	@mkdir -p bin
	@$(E2E) -timeout 20m -run '^Test.*($(FAULTS))'
	@cat bin/faults.txt

## fault-race: the fault tests with the race detector in every program; much slower, a report of a race fails
fault-race:
	@mkdir -p bin
	@E2E_RACE=1 $(E2E) -timeout 60m -parallel 2 -run '^Test.*($(FAULTS))'
	@cat bin/faults.txt

## fault-soak: all faults at random for DURATION, by SEED
DURATION ?= 30m
SEED     ?= $(shell date +%s)
fault-soak:
	@mkdir -p bin
	@echo "seed $(SEED)"
	@$(E2E) -timeout 0 -run '^TestSoak$$' -soak $(DURATION) -seed $(SEED) -rate 130
	@cat bin/faults.txt

## receivers-test: delivery into rsyslog and syslog-ng of Debian, unpacked into bin/receivers
receivers-test:
	@deploy/test/receivers-install.sh bin/receivers
	@RECEIVERS_DIR=$(CURDIR)/bin/receivers go test -tags receivers -timeout 15m -count 1 -v ./services/collector/e2e/receivers

## rules-test: the alarms and the scrape configuration by promtool of Debian, unpacked into bin/prometheus; their names by names-test
rules-test: names-test
	@deploy/test/prometheus-install.sh bin/prometheus
	@bin/prometheus/promtool check config --syntax-only deploy/prometheus/prometheus.yml
	@bin/prometheus/promtool check rules deploy/prometheus/rules.yml
	@bin/prometheus/promtool test rules deploy/prometheus/rules_test.yml

## names-test: every metric and label that an alarm or the dashboard asks for, against /metrics of the demo
names-test: build
	@cd deploy/test/prometheus && GOWORK=off go mod tidy -diff && GOWORK=off go vet ./... && GOWORK=off go test -count 1 ./...

## demo: the whole pipeline against the built-in simulator; ctrl-c stops
demo: build
	@bin/collector demo

## images: the container images of all programs, by docker
images:
	@for p in $(PROGRAMS); do docker build -q -f deploy/Dockerfile --target $$p -t defender-iot-collector/$$p:$(IMAGE_TAG) \
	  --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) . || exit 1; done

## compose-valid: the compose files by the loader and schema of Compose v2; needs no engine
compose-valid:
	@cd deploy/test/compose/valid && GOWORK=off go mod tidy -diff && GOWORK=off go test -count 1 ./...

## compose-test: docker-compose.yml and the images on this machine's engine; removes everything it made
compose-test: compose-valid
	@deploy/test/compose/run.sh

## compose-soak: what a team does and what happens to it, on the engine, at random for DURATION, by SEED
compose-soak:
	@DURATION=$(DURATION) SEED=$(SEED) deploy/test/compose/soak.sh

## cluster-fault: three nodes on the engine under faults, alerts flowing; the table is what each has cost
cluster-fault:
	@deploy/test/compose/cluster.sh

clean:
	@rm -rf bin
