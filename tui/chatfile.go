package tui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"quartet/visible"
	"quartet/worker/client"
)

// exchange is a prompt and its answers, as a file of the chats' folder holds them.
type exchange struct {
	Time     time.Time       `json:"time"`
	Prompt   string          `json:"prompt"`
	Sampling client.Sampling `json:"sampling"`
	Race     bool            `json:"race,omitempty"`
	Answers  []*answer       `json:"answers"`
	Vote     string          `json:"vote,omitempty"` // the variant that won a blind vote
}

func newExchange(prompt string) exchange {
	e := exchange{Time: time.Now(), Prompt: prompt}
	for _, v := range variants {
		e.Answers = append(e.Answers, &answer{Variant: v})
	}
	return e
}

// copy is the exchange for another goroutine.
func (e exchange) copy() exchange {
	answers := e.Answers
	e.Answers = nil
	for _, a := range answers {
		b := *a
		b.flow, b.wrapped, b.marks = flow{}, nil, marks{}
		e.Answers = append(e.Answers, &b)
	}
	return e
}

// save keeps an exchange in the folder of chats.
func save(folder string, e exchange, post func(tea.Msg)) {
	text, err := json.MarshalIndent(e, "", " ")
	if err == nil {
		err = write(folder, e.Time.UTC().Format("20060102-150405.000")+".json", append(text, '\n'))
	}
	if err != nil {
		post(doneMsg{"keep the chat: " + err.Error()})
	}
}

// write puts a file into a folder, whole or not at all.
func write(folder, name string, text []byte) error {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, ".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone once renamed
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(folder, name))
}

// historyLimit is how many former chats are listed.
const historyLimit = 200

type historyMsg struct{ items []exchange }

// readChats are the newest chats of a folder, newest first. Files that are no chats are left out.
func readChats(folder string) ([]exchange, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Reverse(entries)
	var all []exchange
	for _, entry := range entries {
		if len(all) == historyLimit {
			break
		}
		if !strings.HasSuffix(entry.Name(), ".json") || strings.HasPrefix(entry.Name(), "session") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			continue
		}
		var e exchange
		if json.Unmarshal(text, &e) == nil && e.Prompt != "" {
			all = append(all, e.complete())
		}
	}
	return all, nil
}

// complete has exactly one answer of each variant, in order.
func (e exchange) complete() exchange {
	whole := newExchange(e.Prompt)
	for i, v := range variants {
		for _, a := range e.Answers {
			if a != nil && a.Variant == v {
				whole.Answers[i] = a
			}
		}
	}
	e.Answers = whole.Answers
	return e
}

// markdown is a session's chats for people.
func markdown(session []exchange) []byte {
	var out bytes.Buffer
	out.WriteString("# Chats\n")
	for _, e := range session {
		s := e.Sampling
		fmt.Fprintf(&out, "\n## %s\n\n%s\n", e.Time.Format("2006-01-02 15:04:05"), quote(e.Prompt))
		fmt.Fprintf(&out, "\ntemperature %g, top-k %d, top-p %g, repetition penalty %g, at most %d tokens, seed %d\n", s.Temperature, s.TopK, s.TopP, s.RepetitionPenalty, s.MaxNewTokens, s.Seed)
		if e.Race {
			out.WriteString("\nAll variants answered at once: the timings are not comparable.\n")
		}
		for _, a := range e.Answers {
			fmt.Fprintf(&out, "\n### %s\n\n", a.Variant)
			if a.Reason != "" {
				fmt.Fprintf(&out, "%s: %s\n\n", a.State, visible.Line(a.Reason))
			}
			if a.Text != "" {
				out.WriteString(quote(strings.TrimSpace(a.Text)) + "\n")
			}
			if a.Timing != nil {
				fmt.Fprintf(&out, "\n%s\n", timings(a.Timing, e.Race))
			}
		}
		if e.Vote != "" {
			fmt.Fprintf(&out, "\nBlind vote: %s\n", e.Vote)
		}
	}
	return out.Bytes()
}

// quote is untrusted text as an indented block, in which no character means anything to Markdown.
func quote(text string) string {
	return "    " + strings.ReplaceAll(visible.Text(text), "\n", "\n    ")
}

// tallyMsg is the votes of all chats that are kept.
type tallyMsg struct{ tally map[string]int }

func countVotes(folder string) tallyMsg {
	tally := map[string]int{}
	all, _ := readChats(folder)
	for _, e := range all {
		if e.Vote != "" {
			tally[e.Vote]++
		}
	}
	return tallyMsg{tally}
}
