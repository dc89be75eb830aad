package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"quartet/event"
)

// fakeUploader keeps where variants went, and fails where it is told to.
type fakeUploader struct {
	sent []string
	fail error
}

func (f *fakeUploader) Upload(ctx context.Context, o Outgoing, dest string, public bool, told func(string, int64, int64)) (string, error) {
	if f.fail != nil {
		return "", f.fail
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if _, err := os.Stat(o.Dir); err != nil {
		return "", err
	}
	told("adapter_model.safetensors", 5, 5)
	f.sent = append(f.sent, o.Card.Variant+" to "+dest)
	return "address of " + dest, nil
}

// uploadingWorkspace is one whose adapter goes to the hub and whose last variant goes into an archive.
func uploadingWorkspace(t *testing.T) *Workspace {
	w := fakeWorkspace(t)
	works[Upload] = upload
	w.Config.Upload.LoRA, w.Config.Upload.LoRAQuantized = "hf://me/lora", "zip://backup/lora.zip"
	return w
}

func TestUploadStage(t *testing.T) {
	w, u := uploadingWorkspace(t), &fakeUploader{}
	equal(t, "the first run", runAll(t, w, Options{Uploader: u}), append(append([]string{}, Stages...), Upload))
	equal(t, "sent", u.sent, []string{"lora to hf://me/lora", "lora_quantized to zip://" + w.Path("backup/lora.zip")})
	text, err := os.ReadFile(w.Path("results/uploads.json"))
	if err != nil || !strings.Contains(string(text), `"address": "address of hf://me/lora"`) {
		t.Errorf("uploads.json: %s %v", text, err)
	}
	equal(t, "the second run", runAll(t, w, Options{Uploader: u}), nil)
	equal(t, "leftovers", leftovers(t, w), nil)

	w.Config.Training.LearningRate = 0.001
	equal(t, "another adapter", runAll(t, w, Options{Uploader: u}), []string{LoRA, LoRAQuantize, Evaluate, Upload})
	w.Config.Evaluation.TestPrompts = nil
	equal(t, "another evaluation, which the card tells", runAll(t, w, Options{Uploader: u}), []string{Evaluate, Upload})
	w.Config.Upload.LoRA = ""
	equal(t, "without the hub", runAll(t, w, Options{Uploader: u}), []string{Upload})
	w.Config.Evaluation.TestPrompts = []string{"hello"}
	equal(t, "another evaluation, which no card tells", runAll(t, w, Options{Uploader: u}), []string{Evaluate})
	remove(t, w.Path("results/uploads.json"))
	equal(t, "asked for without its record", runAll(t, w, Options{Uploader: u, Stages: []string{Upload}}), []string{Upload})
}

func TestUploadStageFails(t *testing.T) {
	w, u := uploadingWorkspace(t), &fakeUploader{fail: errors.New("the hub refuses the token; set HF_TOKEN")}
	var failed string
	err := Run(t.Context(), w, Options{Uploader: u}, func(e event.Event) {
		if e.Kind == event.StageFailed {
			failed = e.Stage + ": " + e.Text
		}
	})
	if err == nil || failed != "upload: the hub refuses the token; set HF_TOKEN" {
		t.Errorf("error %v, told %q", err, failed)
	}
	parts, err := Status(w)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if want := map[bool]State{true: Failed, false: Fresh}[p.Stage == Upload]; p.State != string(want) {
			t.Errorf("%s is %s, want %s", p.Stage, p.State, want)
		}
	}
	u.fail = nil
	equal(t, "the next run", runAll(t, w, Options{Uploader: u}), []string{Upload})
}

// TestUploadStageStops ends a run for a reason of its caller's own, which an uploader may return as it is.
func TestUploadStageStops(t *testing.T) {
	w := uploadingWorkspace(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("terminated")
	stops := uploadFunc(func() error { cancel(reason); return fmt.Errorf("upload to hf://me/lora: %w", reason) })
	var last event.Event
	if err := Run(ctx, w, Options{Uploader: stops}, func(e event.Event) {
		if e.Kind == event.StageFailed {
			last = e
		}
	}); !errors.Is(err, reason) || !last.Canceled || last.Text != "upload to hf://me/lora" {
		t.Errorf("error %v, event %+v", err, last)
	}
	parts, err := Status(w)
	if err != nil || parts[5].State != string(Interrupted) || parts[5].Reason != "what has been sent is not sent again" {
		t.Errorf("%+v, %v", parts[5], err)
	}
}

type uploadFunc func() error

func (f uploadFunc) Upload(context.Context, Outgoing, string, bool, func(string, int64, int64)) (string, error) {
	return "", f()
}

func TestUploadStagePlan(t *testing.T) {
	w := uploadingWorkspace(t)
	parts, err := Predict(w, Options{})
	if err != nil {
		t.Fatal(err)
	}
	last := parts[len(parts)-1]
	if last.Stage != Upload || last.Reason != "not made yet" {
		t.Errorf("the plan ends with %s: %s", last.Stage, last.Reason)
	}
	want := []event.UploadPart{{Variant: "lora", To: "hf://me/lora", Bytes: 122_880}, {Variant: "lora_quantized", To: "zip://" + w.Path("backup/lora.zip"), Bytes: 2_287_424}}
	if !slices.Equal(last.Uploads, want) {
		t.Errorf("it takes %+v; want %+v", last.Uploads, want)
	}
	runAll(t, w, Options{Uploader: &fakeUploader{}})
	remove(t, w.Path("results/uploads.json"))
	if parts, err = Predict(w, Options{}); err != nil || len(parts[5].Uploads) != 2 || parts[5].Uploads[0].Bytes == 0 || parts[5].Uploads[0].Bytes == want[0].Bytes {
		t.Errorf("of what is there it takes %+v, %v", parts[5].Uploads, err)
	}
	if err := w.CheckStages([]string{Upload}); err != nil {
		t.Error(err)
	}
	w.Config.Upload.LoRA, w.Config.Upload.LoRAQuantized = "", ""
	if parts, err = Predict(w, Options{}); err != nil || len(parts) != len(Stages) {
		t.Errorf("without a place the plan has %d stages, %v", len(parts), err)
	}
	if err := w.CheckStages([]string{Upload}); err == nil || err.Error() != "there is nothing to upload; name a variant's place in [upload] of config.toml" {
		t.Errorf("error %v", err)
	}
}
