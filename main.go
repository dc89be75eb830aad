// Quartet makes four variants of one base language model (base, quantized, lora, lora_quantized) and compares them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"quartet/visible"
)

// command is one of the program's commands. Its run parses its own flags.
type command struct {
	name, arguments, summary string
	run                      func(ctx context.Context, args []string, std streams) error
}

// streams are the standard streams, so that tests can stand in for them.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// commands in the order in which help lists them.
func commands() []command {
	return []command{
		{"demo", "[DIR]", "the whole pipeline on the embedded model, in ./quartet-demo unless DIR is given", runDemo},
		{"plan", "[STAGE…]", "what would run and why, with predicted memory, disk and time, and what is to be downloaded", runPlan},
		{"run", "[STAGE…]", "run what is stale: base, quantize, lora, lora_quantize, evaluate, upload if configured; goes on when the terminal closes", runPipeline},
		{"attach", "", "follow what the worker does, line by line", runAttach},
		{"status", "", "the state of each stage, and of the worker", runStatus},
		{"stop", "", "end the worker; a training keeps its checkpoint", runStop},
		{"logs", "", "what the worker has logged", runLogs},
		{"worker", "", "be the worker of a workspace; other commands start it by themselves", runWorker},
		{"eval", "[VARIANT…]", "measure the variants as they are and print their table; writes nothing", runEval},
		{"compare", "\"PROMPT\"…", "answer with the four variants side by side", runCompare},
		{"workbench", "", "the terminal's workbench: stages, loss, chat, results, log; also `quartet` alone", runWorkbench},
		{"replay", "JOURNAL", "the workbench on a recorded run; --speed plays it faster", runReplay},
		{"report", "", "write report.md and report.html anew from results.json; --history compares former runs", runReport},
		{"download", "REPO", "bring a model of the Hugging Face Hub, or a dataset, into the cache; again goes on where it stopped", runDownload},
		{"upload", "VARIANT DEST", "put a variant on hf://org/name, s3://bucket/prefix, gdrive://folder or in zip://path; again goes on where it stopped", runUpload},
		{"restore", "ARCHIVE DIR", "unpack a variant that went to zip://…, and verify it", runRestore},
		{"convert", "SRC DST", "make a 4-bit model a 16-bit one, and merge an adapter into it with --adapter", runConvert},
		{"doctor", "[PATH]", "what a model, adapter, dataset or workspace is, what loads it, and what is wrong with it; --deep reads all values", runDoctor},
		{"bench", "[MODEL]", "prefill, decoding and training steps against what this machine allows; --random needs no model", runBench},
		{"devices", "", "the GPUs that this build can use: memory, compute capability, bf16 and tf32", runDevices},
		{"golden", "DIR", "hold a folder of reference data of the Python stack against this build", runGolden},
	}
}

// errUsage is a wrong use of the command line, reported with exit status 2.
type errUsage struct{ error }

// errReported is an error that has been shown already; it only sets the exit status.
var errReported = errors.New("already reported")

func main() {
	os.Exit(run(untilSignal(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// stopSignal is the cause of a context that a signal ended.
type stopSignal struct{ os.Signal }

// Error names the signal.
func (s stopSignal) Error() string { return s.String() }

// untilSignal is a context that ends with the first signal that asks the program to end. A second one ends the program at once.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, signals...)
	go func() {
		cancel(stopSignal{<-caught})
		signal.Reset(signals...)
	}()
	return ctx
}

// run executes a command line and returns the exit status: 0, 1 for a failure, 2 for wrong use, 130 when interrupted.
func run(ctx context.Context, args []string, std streams) int {
	if len(args) == 0 && onTerminal(std) {
		args = []string{"workbench"}
	}
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		help(std.out)
		return 0
	}
	all := commands()
	at := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] })
	if at < 0 {
		fmt.Fprintf(std.err, "quartet: no command %q; `quartet help` lists them\n", visible.Line(args[0]))
		return 2
	}
	err := all[at].run(ctx, args[1:], std)
	var usage errUsage
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errReported):
		return 1
	case errors.As(err, new(errLeft)):
		fmt.Fprintf(std.err, "quartet %s: %s\n", all[at].name, visible.Text(err.Error()))
		return 130
	case errors.As(err, &usage):
		fmt.Fprintf(std.err, "quartet %s: %s\n", all[at].name, visible.Text(err.Error()))
		return 2
	case ctx.Err() != nil:
		fmt.Fprintf(std.err, "quartet %s: interrupted; the same command goes on, or starts over where nothing is kept\n", all[at].name)
		return 130
	}
	fmt.Fprintf(std.err, "quartet %s: %s\n", all[at].name, visible.Text(err.Error()))
	return 1
}

func help(w io.Writer) {
	fmt.Fprint(w, "Quartet makes four variants of one base model and compares them: base, quantized (NF4), lora, lora_quantized.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  quartet %-24s %s\n", strings.TrimSpace(c.name+" "+c.arguments), c.summary)
	}
	fmt.Fprint(w, "\n`quartet COMMAND -h` lists a command's flags. The settings are in config.toml of the workspace, the current folder unless\n"+
		"-C names another. On a terminal run, demo, compare and eval let the workspace's worker do the work, which lives on when the terminal\n"+
		"closes: Ctrl-C cancels (training keeps a checkpoint), a second one only leaves. --foreground, and CI, work without it.\n")
}

// flags is a command's flag set, with usage that names its arguments.
func flags(name, arguments string, std streams) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(visibleWriter{std.err})
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "usage: quartet %s [flags] %s\n", name, arguments)
		f.PrintDefaults()
	}
	return f
}

// parse reads flags wherever they stand among the arguments, which it returns.
func parse(f *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, errReportedUsage(err)
		}
		args = f.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// noArguments reads the flags of a command that takes nothing else.
func noArguments(f *flag.FlagSet, args []string) error {
	rest, err := parse(f, args)
	if err == nil && len(rest) > 0 {
		err = errUsage{fmt.Errorf("%s takes no arguments; -C names the workspace", f.Name())}
	}
	return err
}

// errReportedUsage marks an error of the flag package, which has printed it with the usage.
func errReportedUsage(err error) error { return fmt.Errorf("%w: %w", errReported, err) }
