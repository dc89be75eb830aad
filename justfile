# `just` lists the recipes; each is one line that also works when typed by hand.

_list:
    @just --list --unsorted

# build ./quartet
build:
    go build -o quartet .

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

# each parser's fuzz target for a while
fuzz time="30s":
    .ci/fuzz {{time}}

# the workbench's speed, bytes and memory on a pseudo-terminal and in tmux, as a table
tui-bars:
    go test -tags bars ./tui -run '^TestBars$' -v

# write the workbench's golden frames and the README's keys anew
tui-frames:
    go test ./tui -update

# the README's picture of the workbench, from the demo's journal
tui-picture: demo
    ./quartet replay --svg docs/workbench.svg quartet-demo
