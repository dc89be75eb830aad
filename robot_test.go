package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quartet/screen"
	"quartet/worker/client"
)

// robot is a user of the workbench on a pseudo-terminal.
type robot struct {
	*testing.T
	quartet string
	screen  *screen.Screen
}

// opens starts the workbench in a folder.
func (r *robot) opens(dir string) {
	r.Helper()
	cmd := exec.Command(r.quartet)
	cmd.Dir = dir
	s, err := screen.Start(cmd, 120, 40)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(s.Close)
	r.screen = s
}

// types presses keys, each of which is one piece as a terminal sends it.
func (r *robot) types(keys ...string) {
	for _, k := range keys {
		r.screen.Type(k)
	}
}

func (r *robot) sees(text string) {
	r.Helper()
	if err := r.screen.Await(text, 20*time.Second); err != nil {
		r.Fatal(err)
	}
}

// leaves presses q and holds the program to its end.
func (r *robot) leaves() {
	r.Helper()
	r.types("q")
	if err := r.screen.Wait(5 * time.Second); err != nil {
		r.Fatal(err)
	}
}

// TestRobot is a user's first half hour, with fewer rows: the demo, all stages, a chat, a rerun that is cancelled and run again, the
// results, an export, leaving and coming back. `just robot` plays the whole demo in tmux.
func TestRobot(t *testing.T) {
	r := &robot{T: t, quartet: program(t)}
	empty := t.TempDir()
	r.opens(empty)
	r.sees("There is no config.toml")
	r.types("c")
	r.sees("wrote config.toml")
	r.leaves()

	dir := smallWorkspace(t)
	set(t, dir, map[string]string{"num_samples": "240", "held_out": "4"})
	t.Cleanup(func() {
		if c, err := client.Dial(dir); err == nil || errors.As(err, new(client.Mismatch)) {
			c.Stop(context.Background())
		}
	})
	r.opens(dir)
	r.sees("press 3 and r to train")
	r.types("a")
	r.sees("lora has ")
	r.sees(" idle")
	r.sees("5 evaluate       fresh")
	r.types("t", "What is a bee?", "\r")
	r.sees("decode ")
	r.types("3", "r")
	r.sees("Rerun lora?")
	r.types("y")
	r.sees("runs lora")
	r.sees("  loss ")
	r.types("c")
	r.sees("interrupted: training stopped")
	r.types("r")
	r.sees("Rerun lora?")
	r.types("y")
	r.sees("runs lora")
	r.sees(" idle")
	r.types("e")
	r.sees("KL to base")
	r.types("t", "x")
	r.sees("wrote ")
	if chats, _ := filepath.Glob(filepath.Join(dir, "results", "chats", "session-*.md")); len(chats) == 0 {
		t.Error("the export wrote no file")
	}
	r.leaves()

	r.opens(dir)
	r.sees(" idle")
	r.sees("step 60/60")
	r.types("o")
	r.sees("interrupted: training stopped")
	r.leaves()
	if status, _ := exec.Command(r.quartet, "status", "-C", dir).CombinedOutput(); strings.Count(string(status), "fresh") < 3 {
		t.Errorf("%s", status)
	}
}
