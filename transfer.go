package main

import (
	"fmt"
	"time"

	"quartet/console"
	"quartet/event"
	"quartet/visible"
)

// teller shows on the terminal how a transfer goes.
type teller struct{ show event.Sink }

func newTeller(std streams) teller {
	return teller{console.New(std.out, console.ModeFor(std.out, false), console.Color(std.out))}
}

func (t teller) say(kind event.Kind, text string) {
	t.show(event.Event{Time: time.Now(), Kind: kind, Text: text})
}

// meter counts bytes.
func (t teller) meter() *event.Meter {
	return event.NewMeter("bytes", func(e event.Event) { e.Time = time.Now(); t.show(e) })
}

// listFiles prints files with their sizes, and what they come to.
func listFiles[F any](std streams, files []F, about func(F) (name string, size int64), where string) {
	var total int64
	for _, f := range files {
		name, size := about(f)
		fmt.Fprintf(std.out, "%9s  %s\n", console.Bytes(size), visible.Line(name))
		total += size
	}
	fmt.Fprintf(std.out, "%9s  in %s%s\n", console.Bytes(total), counted(len(files)), visible.Line(where))
}

func counted(files int) string {
	if files == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", files)
}
