// Package client is the other end of the worker's socket: it finds or starts the worker of a workspace, follows its events and
// asks it to do things. It knows nothing of models or devices.
package client

import (
	"time"

	"quartet/event"
)

// Info is who a worker is and what it does at the moment.
type Info struct {
	Version   string    `json:"version"`   // of the program that the worker runs
	Workspace string    `json:"workspace"` // absolute path
	Name      string    `json:"name"`      // what the header calls the run: the base model's name
	Host      string    `json:"host"`
	PID       int       `json:"pid"`
	Started   time.Time `json:"started"`
	Device    string    `json:"device"`          // "cpu" or the GPU's name
	Run       string    `json:"run,omitempty"`   // the run at work, "" for none
	Stage     string    `json:"stage,omitempty"` // the stage at work
	Chats     int       `json:"chats"`           // answers under way or waiting
	Clients   int       `json:"clients"`         // that follow the events
}

// Snapshot is the state of a workspace in one piece, with which a client begins; the events after Seq bring it up to date.
type Snapshot struct {
	Info    Info                   `json:"info"`
	Seq     int64                  `json:"seq"`    // the number of the last event in it
	Stages  []event.PlanPart       `json:"stages"` // how each stage stands
	Curve   []event.TrainPart      `json:"curve"`  // the steps of the newest training; thinned out where there are very many
	Results *event.Event           `json:"results,omitempty"`
	Recent  []event.Event          `json:"recent"`  // the newest log lines, warnings and ends of stages, oldest first
	Working map[string]event.Event `json:"working"` // by stage at work, its last progress
	Sizes   map[string]int64       `json:"sizes"`   // bytes on disk by stage
	Memory  map[string]event.Uses  `json:"memory"`  // by stage, what it has reserved, or had in its last run
}

// Numbered is an event with its number. Numbers grow; a gap is events that a slow client missed.
type Numbered struct {
	Seq   int64       `json:"seq"`
	Event event.Event `json:"event"`
}

// Behind is the last line of a stream of events that ends because the client has missed too much.
type Behind struct {
	Behind bool `json:"behind"`
}

// RunRequest asks for stages, as `quartet run` does.
type RunRequest struct {
	Stages []string `json:"stages,omitempty"` // none for all
	Force  bool     `json:"force,omitempty"`
	Weigh  bool     `json:"weigh,omitempty"` // a plan tells how much is to be fetched, for which the hub is asked: that takes seconds
}

// MeasureRequest asks for an evaluation of variants, as `quartet eval` does.
type MeasureRequest struct {
	Variants []string `json:"variants,omitempty"` // none for all
}

// ReportRequest asks for the reports anew, as `quartet report` does.
type ReportRequest struct {
	History bool `json:"history,omitempty"`
}

// Sampling is how an answer is drawn; Temperature 0 always takes the likeliest token.
type Sampling struct {
	Temperature       float64 `json:"temperature"`
	TopK              int     `json:"top_k"`
	TopP              float64 `json:"top_p"`
	RepetitionPenalty float64 `json:"repetition_penalty"`
	MaxNewTokens      int     `json:"max_new_tokens"`
	Seed              uint64  `json:"seed"`
}

// ChatRequest asks variants to answer one prompt.
type ChatRequest struct {
	Prompt   string    `json:"prompt"`
	Variants []string  `json:"variants,omitempty"` // none for all four
	Sampling *Sampling `json:"sampling,omitempty"` // nil for the configuration's
	Race     bool      `json:"race,omitempty"`     // all at once, rather than one after another
}

// ChatEvent is a piece of an answer, or its end.
type ChatEvent struct {
	Variant string      `json:"variant"`
	State   string      `json:"state"`          // "waiting", "loading", "prefill", "decoding", "done", "failed", "canceled"
	Text    string      `json:"text,omitempty"` // the next piece, always whole characters; untrusted
	Reason  string      `json:"reason,omitempty"`
	Timing  *ChatTiming `json:"timing,omitempty"` // with "done", and from time to time while "decoding"
}

// ChatTiming is how fast an answer came.
type ChatTiming struct {
	PromptTokens int     `json:"prompt_tokens"`
	Tokens       int     `json:"tokens"`
	TTFT         float64 `json:"ttft_seconds"`
	Prefill      float64 `json:"prefill_tokens_per_second"`
	Decode       float64 `json:"decode_tokens_per_second"`
	MemoryBytes  int64   `json:"memory_bytes"`     // what the variant holds at the peak
	Complete     bool    `json:"complete"`         // end-of-text ended it
	Shared       bool    `json:"shared,omitempty"` // other work ran meanwhile, so the figures are low
}
