package tui

import (
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"

	"quartet/event"
	"quartet/worker/client"
)

// TestUploadStage shows the sixth stage where the plan has it, how far each file is, and takes it away again.
func TestUploadStage(t *testing.T) {
	shows := func(b *bench, wanted bool, texts ...string) {
		t.Helper()
		frame := ansi.Strip(b.m.View().Content)
		checkFrame(t, b.m.View().Content, 120, 40)
		for _, text := range texts {
			if strings.Contains(frame, text) != wanted {
				t.Errorf("%q shown: %v\n%s", text, !wanted, frame)
			}
		}
	}
	b := newBench(t, 120, 40)
	b.press("6")
	shows(b, false, "6 upload")
	shows(b, true, "nothing is to be uploaded")

	five := training(0)[0].Plan
	six := append(five[:5:5], event.PlanPart{Stage: "upload", State: "missing", Reason: "not made yet", Run: true,
		Uploads: []event.UploadPart{{Variant: "lora", To: "hf://me/phi\x1b[31m", Bytes: 122_880}}})
	b.happen(event.Event{Kind: event.Plan, Time: start, Plan: six})
	b.press("6")
	shows(b, true, "6 upload", "lora (123 kB) to hf://me/phi")
	b.happen(event.Event{Kind: event.StageStarted, Time: start, Stage: "upload"},
		event.Event{Kind: event.Progress, Time: start, Stage: "upload", Progress: &event.ProgressPart{Label: "lora/adapter_model.safetensors", Done: 61_440, Total: 122_880, Unit: "bytes", Rate: 6144, ETA: 10}})
	shows(b, true, " 50 %", "ETA 10", "adapter_model")
	b.press("c")
	if b.m.dialog != nil || b.worker.canceled != 1 {
		t.Errorf("cancelled %d times; what goes on needs no question", b.worker.canceled)
	}
	b.happen(event.Event{Kind: event.StageFailed, Time: start, Stage: "upload", Text: "the hub does not take the token; set HF_TOKEN"}, event.Event{Kind: event.RunDone, Time: start})
	shows(b, true, "failed", "set HF_TOKEN")

	b.send(plannedMsg{five})
	shows(b, false, "6 upload")
	shows(b, true, "5 evaluate")

	late := stateOf(&client.Snapshot{Stages: six, Recent: []event.Event{{Kind: event.StageFailed, Time: start, Stage: "upload", Text: "set HF_TOKEN"}}})
	if got := late.stages["upload"].failure; got != "set HF_TOKEN" {
		t.Errorf("who comes later is told %q", got)
	}
}
