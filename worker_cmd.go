package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"time"

	"quartet/console"
	"quartet/event"
	"quartet/visible"
	"quartet/worker"
	"quartet/worker/client"
)

// runWorker is `quartet worker`: it is the worker of a workspace, in the foreground.
func runWorker(ctx context.Context, args []string, std streams) error {
	f := flags("worker", "", std)
	dir := workspaceFlag(f)
	if err := noArguments(f, args); err != nil {
		return err
	}
	return worker.Serve(ctx, *dir, worker.Options{Source: source(), Uploader: uploader{}, Weigh: weigh, Log: log.New(std.err, "", log.LstdFlags)})
}

// runStop is `quartet stop`.
func runStop(ctx context.Context, args []string, std streams) error {
	f := flags("stop", "", std)
	dir := workspaceFlag(f)
	if err := noArguments(f, args); err != nil {
		return err
	}
	c, err := client.Dial(*dir)
	if errors.Is(err, client.ErrNone) {
		fmt.Fprintln(std.out, "no worker runs in this workspace")
		return nil
	}
	if err != nil && !errors.As(err, new(client.Mismatch)) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		return err
	}
	fmt.Fprintln(std.out, "the worker has ended")
	return nil
}

// runAttach is `quartet attach`: it follows the worker until it ends, or the user leaves.
func runAttach(ctx context.Context, args []string, std streams) error {
	f := flags("attach", "", std)
	dir := workspaceFlag(f)
	asJSON := f.Bool("json", false, "print one event a line, as JSON")
	if err := noArguments(f, args); err != nil {
		return err
	}
	c, err := client.Dial(*dir)
	if err != nil {
		return err
	}
	snap, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	mode := console.ModeFor(std.out, *asJSON)
	show := console.New(std.out, mode, console.Color(std.out))
	if !*asJSON {
		fmt.Fprintf(std.out, "%s; Ctrl-C leaves, and the worker goes on\n", who(snap.Info))
		fmt.Fprint(std.out, console.PlanText(snap.Stages))
	}
	for _, e := range newestRun(snap) {
		show(e)
	}
	err = visitEvents(ctx, c, snap.Seq, func(e event.Event) error {
		show(e)
		return nil
	})
	if mode == console.Live {
		fmt.Fprintln(std.out) // after a progress line
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// newestRun is what a snapshot knows of the run at work.
func newestRun(snap *client.Snapshot) (events []event.Event) {
	for _, e := range snap.Recent {
		if e.Run == snap.Info.Run && e.Run != "" {
			events = append(events, e)
		}
	}
	return events
}

// who is a worker in words.
func who(i client.Info) string {
	does := "waits"
	switch {
	case i.Stage != "":
		does = "runs " + i.Stage
	case i.Run != "":
		does = "is at work"
	case i.Chats > 0:
		does = "answers"
	}
	return visible.Line(fmt.Sprintf("worker: process %d on %s, since %s, %s, %s, %d looking on", i.PID, i.Host, i.Started.Local().Format("2006-01-02 15:04:05"), i.Device, does, i.Clients))
}

// logTail is how many bytes of the log are shown without -all.
const logTail = 16 << 10

// runLogs is `quartet logs`.
func runLogs(_ context.Context, args []string, std streams) error {
	f := flags("logs", "", std)
	dir := workspaceFlag(f)
	all := f.Bool("all", false, "print the whole log, not only its end")
	if err := noArguments(f, args); err != nil {
		return err
	}
	text, err := os.ReadFile(client.LogFile(*dir))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no log; no worker has run in this workspace yet")
	}
	if err != nil {
		return err
	}
	if cut := len(text) - logTail; cut > 0 && !*all {
		text = text[cut:]
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	_, err = fmt.Fprint(std.out, visible.Text(string(text)))
	return err
}
