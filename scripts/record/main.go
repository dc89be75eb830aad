// Command record plays the demo in the workbench on a pseudo-terminal, as a person would, and draws what the terminal showed
// as a film: record QUARTET FILE.svg.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"quartet/picture"
	"quartet/screen"
)

// The film's size, how often a frame is taken, how much faster it plays, and how long it rests on its last frame.
const (
	width, height = 110, 32
	every         = 400 * time.Millisecond
	faster        = 2
	rest          = 4 * time.Second
)

// scene is what a person types and then waits to see, and how long they look at it.
type scene struct {
	keys, sees string
	looks      time.Duration
}

var play = []scene{
	{"", "There is no config.toml", 2 * time.Second},
	{"d", "runs lora", 0},
	{"", "evaluate       fresh", 3 * time.Second},
	{"t", "enter send", time.Second},
	{"Where does an owl live?", "live?", time.Second},
	{"\r", "first ", 0},
	{"", "tokens", 4 * time.Second},
	{"d", "diff to base", 3 * time.Second},
	{"e", "KL to base", 5 * time.Second},
	{"3", "one batch", 3 * time.Second},
	{"r", "Rerun lora?", 3 * time.Second},
	{"n", "one batch", 0},
	{"l", "loss by steps", 2 * time.Second},
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: record QUARTET FILE.svg")
		os.Exit(2)
	}
	if err := record(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func record(quartet, file string) error {
	quartet, err := filepath.Abs(quartet)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "phi-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(quartet)
	cmd.Dir = dir
	s, err := screen.Start(cmd, width, height)
	if err != nil {
		return err
	}
	defer s.Close()
	defer exec.Command(quartet, "stop", "-C", filepath.Join(dir, "quartet-demo")).Run()

	var frames []picture.Frame
	began, shown := time.Now(), ""
	watch := func(while time.Duration) {
		for end := time.Now().Add(while); ; time.Sleep(every) {
			if cells := s.Cells(); cells.Render() != shown {
				shown = cells.Render()
				frames = append(frames, picture.Frame{At: time.Since(began) / faster, Cells: cells})
			}
			if !time.Now().Before(end) {
				return
			}
		}
	}
	for _, scene := range play {
		for _, key := range scene.keys {
			s.Type(string(key))
			time.Sleep(60 * time.Millisecond)
			if len(scene.keys) > 1 {
				watch(0)
			}
		}
		for patience := time.Now().Add(time.Minute); s.Await(scene.sees, every) != nil; watch(0) {
			if time.Now().After(patience) {
				return s.Await(scene.sees, 0)
			}
		}
		watch(scene.looks)
	}
	s.Type("q")
	if err := s.Wait(5 * time.Second); err != nil {
		return err
	}
	film := picture.Film(frames, time.Since(began)/faster+rest)
	if err := os.WriteFile(file, film, 0o644); err != nil {
		return err
	}
	fmt.Printf("wrote %s: %d frames, %d kB\n", file, len(frames), len(film)/1000)
	return nil
}
