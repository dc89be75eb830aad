package pipeline

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// formats are the versions of what the stages make of the same input. Raising one makes that stage's artefacts stale.
var formats = map[string]int{Base: 1, Quantize: 1, LoRA: 1, LoRAQuantize: 1, Evaluate: 1, Upload: 1}

// Manifest records a finished run of a stage: what it was made from and what it made.
type Manifest struct {
	Format  int                `json:"format"`
	Stage   string             `json:"stage"`
	Run     string             `json:"run"`
	Started time.Time          `json:"started"`
	Seconds float64            `json:"seconds"`
	Device  string             `json:"device"`
	Config  json.RawMessage    `json:"config"`            // config.Part of the stage
	Inputs  map[string]Tree    `json:"inputs"`            // by the stage that made them, or "source", "dataset", "held_out"
	Folder  string             `json:"folder"`            // as the configuration spelt it
	Outputs Tree               `json:"outputs"`           // in Folder
	Adopted bool               `json:"adopted,omitempty"` // taken as it lay there
	Figures map[string]float64 `json:"figures,omitempty"`
}

// newRun names a run by its time, so that names sort, and by chance.
func newRun(at time.Time) string {
	b := make([]byte, 3)
	rand.Read(b)
	return at.UTC().Format("20060102-150405.000000") + "-" + hex.EncodeToString(b)
}

func (w *Workspace) manifestPath(stage string) string { return w.state("stages", stage+".json") }

// manifest is the record of a stage's last run, nil where there is none.
func (w *Workspace) manifest(stage string) (*Manifest, error) {
	var m Manifest
	found, err := readJSON(w.manifestPath(stage), &m)
	if err != nil || !found || m.Stage != stage {
		return nil, err
	}
	return &m, nil
}

// mark is what is known of a run that has not finished its stage: it is there while one runs, and stays when one ends early.
type mark struct {
	Run     string    `json:"run"`
	Started time.Time `json:"started"`
	Error   string    `json:"error,omitempty"` // why it ended, "" where it runs or was killed
	Stopped bool      `json:"stopped,omitempty"`
}

func (w *Workspace) markPath(stage string) string { return w.state("stages", stage+".unfinished.json") }

func (w *Workspace) mark(stage string) (*mark, error) {
	var m mark
	found, err := readJSON(w.markPath(stage), &m)
	if err != nil || !found {
		return nil, err
	}
	return &m, nil
}

func (w *Workspace) clearMark(stage string) error {
	if err := os.Remove(w.markPath(stage)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("clear the mark of stage %s: %w", stage, obstacle(err))
	}
	return nil
}
