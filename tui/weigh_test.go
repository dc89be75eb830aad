package tui

import (
	"slices"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
)

// TestFetchedSizes has a snapshot, which asks no hub, and a plan that has asked: the workbench shows what it tells.
func TestFetchedSizes(t *testing.T) {
	b := newBench(t, 120, 40)
	parts := slices.Clone(training(0)[0].Plan)
	parts[0].State, parts[0].Fetch, parts[0].Run = "missing", "microsoft/phi-2", true
	b.worker.snap.Stages = parts
	before := stateOf(&b.worker.snap)
	weighed := slices.Clone(parts)
	weighed[0].FetchBytes = 5_560_000_000
	b.worker.snap.Stages = weighed
	b.send(openedMsg{b.m.feed, b.worker, before})
	b.press("1")
	if frame := ansi.Strip(b.m.View().Content); !strings.Contains(frame, "microsoft/phi-2, 5.56 GB") {
		t.Errorf("the size is not shown:\n%s", frame)
	}
	later := slices.Clone(weighed)
	later[0].Fetch = "org/other"
	b.send(weighedMsg{later})
	if got := b.m.state.stages["base"].plan; got.Fetch != "microsoft/phi-2" || got.FetchBytes != 5_560_000_000 {
		t.Errorf("a plan of something else is taken: %+v", got)
	}
}
