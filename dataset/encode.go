package dataset

import (
	"fmt"

	"quartet/tokenizer"
)

// Labels says which tokens of a row are trained.
type Labels string

// The label modes.
const (
	LabelsAll      Labels = "all"      // prompt, response and end-of-text
	LabelsSeed     Labels = "seed"     // all but every end-of-text, as a pad token equal to it masks it (transformers issue 23530)
	LabelsResponse Labels = "response" // the response and its end-of-text
)

// Masked is the label of a token that is not trained.
const Masked = -100

// Example is one row as token ids. Labels are aligned with IDs, not shifted; nothing is padded.
type Example struct {
	IDs, Labels []int32
	Prompt      int  // how many of the ids are the prompt's alone
	Truncated   bool // the row was longer than max_length
}

// Options say how rows are encoded.
type Options struct {
	MaxLength int  // tokens, end-of-text included
	Truncate  bool // cut longer rows; otherwise one is an error
	Labels    Labels
}

// Stats are figures of all encoded rows.
type Stats struct {
	Rows, Tokens    int
	Trained, Masked int // tokens; a row's first token is never predicted and counts as masked
	Truncated       int // rows
	EOSTargets      int // rows whose end-of-text is trained
	PaddingShare    float64
	Longest         int // tokens of the longest row
}

// Encode makes each row its prompt and response, encoded at once, with end-of-text behind them. PaddingShare of the
// figures is the share of tokens that padding every row to MaxLength would compute in vain.
func Encode(t *tokenizer.Tokenizer, template Template, rows []Row, eos int32, o Options) ([]Example, Stats, error) {
	examples := make([]Example, 0, len(rows))
	s := Stats{Rows: len(rows)}
	for i, r := range rows {
		prompt := template.Render(r)
		e := Example{IDs: append(t.Encode(prompt+r.Response), eos)}
		e.Prompt = PromptTokens(t.Encode(prompt), e.IDs[:len(e.IDs)-1])
		if len(e.IDs) > o.MaxLength {
			if !o.Truncate {
				return nil, Stats{}, fmt.Errorf("row %d (%.40q) has %d tokens, more than max_length %d; raise it or set truncation = true", i+1, r.Instruction, len(e.IDs), o.MaxLength)
			}
			e.IDs, e.Truncated = e.IDs[:o.MaxLength], true
			e.Prompt = min(e.Prompt, o.MaxLength)
			s.Truncated++
		}
		e.Labels = append([]int32(nil), e.IDs...)
		for j, id := range e.IDs {
			if o.Labels == LabelsSeed && id == eos || o.Labels == LabelsResponse && j < e.Prompt {
				e.Labels[j] = Masked
			}
		}
		for j, l := range e.Labels {
			if j > 0 && l != Masked {
				s.Trained++
			}
		}
		if last := len(e.Labels) - 1; last > 0 && !e.Truncated && e.Labels[last] == eos {
			s.EOSTargets++
		}
		s.Tokens += len(e.IDs)
		s.Longest = max(s.Longest, len(e.IDs))
		examples = append(examples, e)
	}
	s.Masked = s.Tokens - s.Trained
	if all := len(rows) * o.MaxLength; all > 0 {
		s.PaddingShare = 1 - float64(s.Tokens)/float64(all)
	}
	return examples, s, nil
}

// PromptTokens is how many of a row's ids are the prompt's alone: those in which the prompt's own encoding and that of
// prompt and response agree. A token that reaches from the one into the other belongs to the response.
func PromptTokens(prompt, whole []int32) int {
	n := 0
	for n < min(len(prompt), len(whole)) && prompt[n] == whole[n] {
		n++
	}
	return n
}

// Piece is a run of tokens of one row that are all trained or all masked.
type Piece struct {
	Text    string // untrusted
	Trained bool
}

// Pieces cuts an example's text where trained and masked tokens meet.
func Pieces(t *tokenizer.Tokenizer, e Example) []Piece {
	var pieces []Piece
	for from := 0; from < len(e.IDs); {
		trained := from > 0 && e.Labels[from] != Masked
		to := from + 1
		for to < len(e.IDs) && (e.Labels[to] != Masked) == trained {
			to++
		}
		pieces = append(pieces, Piece{t.Decode(e.IDs[from:to], false), trained})
		from = to
	}
	return pieces
}
