// Package event is what a run reports while it works: typed events, a journal of them on disk, and their fan-out to
// listeners that may be slower than the run.
package event

import (
	"encoding/json"
	"math"
	"time"
)

// Kind says what happened, and with that which of an Event's parts is set.
type Kind string

// The kinds of events.
const (
	Plan         Kind = "plan"          // Plan: what the run is going to do
	StageStarted Kind = "stage_started" // Text: why the stage runs
	StageFresh   Kind = "stage_fresh"   // the stage has nothing to do
	Progress     Kind = "progress"      // Progress
	TrainStep    Kind = "train_step"    // Train
	Preview      Kind = "preview"       // Preview: one batch before training
	Memory       Kind = "memory"        // Memory: what the stage has reserved; a later one replaces it
	Log          Kind = "log"           // Text
	Warning      Kind = "warning"       // Text: what is odd and what to try
	StageDone    Kind = "stage_done"    // Seconds, Figures
	StageFailed  Kind = "stage_failed"  // Text: one line; Canceled when the run was asked to stop
	Results      Kind = "results"       // Results: the content of results.json
	RunDone      Kind = "run_done"      // Seconds; Text is the error of a run that failed
	Clients      Kind = "clients"       // Clients: how many look on now; never in the journal
)

// Lossy reports whether a listener that cannot keep up may miss events of the kind: a later one replaces them.
func (k Kind) Lossy() bool { return k == Progress || k == TrainStep || k == Clients }

// Event is one thing that happened. It is one line of JSON; of the parts below Text only those of its Kind are set.
type Event struct {
	Time  time.Time `json:"time"`
	Kind  Kind      `json:"kind"`
	Run   string    `json:"run,omitempty"`   // the run it belongs to
	Stage string    `json:"stage,omitempty"` // "" for the run as a whole
	Text  string    `json:"text,omitempty"`

	Progress *ProgressPart   `json:"progress,omitempty"`
	Train    *TrainPart      `json:"train,omitempty"`
	Preview  *PreviewPart    `json:"preview,omitempty"`
	Plan     []PlanPart      `json:"plan,omitempty"`
	Results  json.RawMessage `json:"results,omitempty"`
	Memory   Uses            `json:"memory,omitempty"`

	Seconds  float64          `json:"seconds,omitempty"`
	Figures  map[string]Float `json:"figures,omitempty"`
	Canceled bool             `json:"canceled,omitempty"`
	Clients  int              `json:"clients,omitempty"`
}

// Uses are bytes of memory by what they are for: "weights", "adapter" (its gradients included), "optimizer", "activations",
// "cache" (keys and values), "other".
type Uses map[string]int64

// Total is the bytes of all uses.
func (u Uses) Total() (n int64) {
	for _, bytes := range u {
		n += bytes
	}
	return n
}

// ProgressPart is how far a stage has come.
type ProgressPart struct {
	Label string  `json:"label,omitempty"` // what is being done, where a stage does several things
	Done  int64   `json:"done"`
	Total int64   `json:"total"` // 0 where it is not known
	Unit  string  `json:"unit"`  // "bytes", "rows", "steps"
	Rate  float64 `json:"rate"`  // units a second, 0 where it is not known yet
	ETA   float64 `json:"eta_seconds"`
}

// TrainPart is one optimiser step.
type TrainPart struct {
	Step            int     `json:"step"` // counts from 1
	Steps           int     `json:"steps"`
	Epoch           int     `json:"epoch"`
	Loss            Float   `json:"loss"`
	GradNorm        Float   `json:"grad_norm"` // before clipping
	LR              Float   `json:"lr"`
	LossScale       Float   `json:"loss_scale"`
	Tokens          int     `json:"tokens"`            // trained in this step
	Skipped         bool    `json:"skipped,omitempty"` // a gradient overflowed
	TokensPerSecond float64 `json:"tokens_per_second"`
	ETA             float64 `json:"eta_seconds"`
}

// PreviewPart is one batch as it is going to be trained, and the figures of all rows.
type PreviewPart struct {
	Pieces       []Piece `json:"pieces"`
	Rows         int     `json:"rows"`
	Tokens       int     `json:"tokens"`
	Trained      int     `json:"trained"`
	Masked       int     `json:"masked"`
	Truncated    int     `json:"truncated"`     // rows
	EOSTargets   int     `json:"eos_targets"`   // rows whose end-of-text is trained
	PaddingShare float64 `json:"padding_share"` // what padding would have computed in vain
}

// Piece is a run of tokens that are all trained or all masked.
type Piece struct {
	Text    string `json:"text"` // untrusted: it may hold control characters
	Trained bool   `json:"trained"`
}

// PlanPart is one stage of a plan.
type PlanPart struct {
	Stage       string  `json:"stage"`
	State       string  `json:"state"`
	Reason      string  `json:"reason,omitempty"`
	Run         bool    `json:"run"`
	MemoryBytes int64   `json:"memory_bytes,omitempty"` // predicted peak, 0 where it cannot be known yet
	Memory      Uses    `json:"memory,omitempty"`       // what MemoryBytes is predicted to be for
	DiskBytes   int64   `json:"disk_bytes,omitempty"`   // predicted size of what the stage writes
	Seconds     float64 `json:"seconds,omitempty"`      // predicted
	Fetch       string  `json:"fetch,omitempty"`        // the model or dataset of the hub that the stage fetches first
	FetchBytes  int64   `json:"fetch_bytes,omitempty"`  // what of it is still to come, 0 where that is not known

	Uploads []UploadPart `json:"uploads,omitempty"` // what the stage takes elsewhere
}

// UploadPart is a variant that goes somewhere.
type UploadPart struct {
	Variant string `json:"variant"`
	To      string `json:"to"`              // hf://org/name, s3://bucket/prefix, gdrive://folder or zip://path
	Bytes   int64  `json:"bytes,omitempty"` // of the variant, predicted where it is to be made; 0 where that is not known
}

// Float is a number that may be infinite or not a number, which JSON has no spelling for: it is written as null.
type Float float64

// MarshalJSON writes the number, or null where it is not finite.
func (f Float) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// UnmarshalJSON reads a number, and null as not a number.
func (f *Float) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*f = Float(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float64)(f))
}

// Sink takes events, one at a time and in order. A sink that must not hold up the work gives them to a Fanout.
type Sink func(Event)

// Tee is a sink that gives each event to all sinks, one after another.
func Tee(sinks ...Sink) Sink {
	return func(e Event) {
		for _, s := range sinks {
			s(e)
		}
	}
}
