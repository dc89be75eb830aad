# `just` lists the recipes; each is one line that also works when typed by hand.

_list:
    @just --list --unsorted

# build ./quartet, with CUDA where nvcc is found
build:
    scripts/build.sh

# build ./quartet for the CPU alone
build-cpu:
    scripts/build.sh cpu

# release programs in ./dist: without CUDA, and with kernels for all GPUs; both start on a machine without either
dist:
    scripts/build.sh cpu dist/quartet-linux-$(go env GOARCH)
    QUARTET_GPUS="80 86 89 90a 100 120" scripts/build.sh cuda dist/quartet-linux-$(go env GOARCH)-cuda

# run the whole pipeline on the embedded model, into ./quartet-demo
demo: build
    ./quartet demo

# all tests
test:
    go test ./...

# what CI runs: format, vet, staticcheck, generated files up to date, tests
check:
    .ci/run

# hold a folder of reference data against this build
golden dir="testdata/golden": build
    ./quartet golden {{dir}}

# write the generated files anew: assembly kernels
generate:
    go generate ./...

# speeds of a random model of the demo's shape against this machine's floors
bench: build
    ./quartet bench --random tiny

# the CPU kernels' speed
bench-kernels:
    go test ./kernels/cpu -run '^$' -bench .

# the CUDA backend's tests: conformance, transfers; needs a GPU
test-gpu:
    eval "$(kernels/cuda/build.sh)" && go test -tags cuda -count=1 ./kernels/cuda

# everything that is claimed of the GPU, in one table: conformance, golden data, transformers, speeds; needs a GPU, torch for the ratios
bench-gpu dir="/tmp/quartet-gpu":
    scripts/gpu.sh build {{dir}} && scripts/gpu.sh check {{dir}} && scripts/gpu.sh speed {{dir}}

# each parser's fuzz target for a while
fuzz time="30s":
    .ci/fuzz {{time}}

# uploads to a real S3 server, versitygw, which this builds first: minutes
test-s3:
    go test -tags gateway ./hub -run TestS3 -v

# 100 transfers of 256 MB each from and to servers on this machine, each cut at a random byte and run again
transfers:
    QUARTET_CUTS=100 go test -tags gateway ./hub -run "Test(S3|Drive|Repository)Cuts|TestCutAnywhere" -v -timeout 2h

# uploads of 2 GB to test servers on this machine, beside curl: throughput and memory
transfer-bars:
    go test -tags bars,gateway ./hub -run "Speed" -v -timeout 30m

# the workbench's speed, bytes and memory on a pseudo-terminal and in tmux, as a table
tui-bars:
    go test -tags bars ./tui -run '^TestBars$' -v

# write the workbench's golden frames and the README's keys anew
tui-frames:
    go test ./tui -update

# the README's picture of the workbench, from the demo's journal
tui-picture: demo
    ./quartet replay --svg docs/workbench.svg quartet-demo

# the README's recording of the workbench: the demo, played on a pseudo-terminal as a person would, about a minute
tui-recording: build
    go run ./scripts/record ./quartet docs/workbench-recording.svg

# a user of the workbench, played in tmux from the first screen to the export
robot: build
    scripts/robot.sh ./quartet

# 100 clients of one training killed at random moments, by SIGHUP, SIGKILL and closed terminals in turn: a minute or two
kills:
    QUARTET_KILLS=100 go test . -run '^TestClientsKilled$' -count=1 -v -timeout 20m

# the worker, the workbench and what they share under the race detector; needs a C compiler
race:
    CGO_ENABLED=1 go test -race ./worker/... ./tui/... ./event/... ./console/...
