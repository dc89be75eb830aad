package tokenizer

import (
	"errors"
	"fmt"
)

// maxID bounds token ids, far above any vocabulary.
const maxID = 1 << 24

// addedToken is a token beside the vocabulary, or one of it that is split from the text before anything else.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized *bool  `json:"normalized"` // absent: not if special
	Special    bool   `json:"special"`
}

// build checks the vocabulary, the merges and the added tokens, and makes a tokenizer of them.
func build(vocab vocabulary, rules mergeRules, addedTokens []addedToken) (*Tokenizer, error) {
	if len(vocab) == 0 {
		return nil, errors.New("the vocabulary is empty")
	}
	t := &Tokenizer{
		tokens: make(map[int32]string, len(vocab)), names: make(map[string]int32, len(vocab)),
		special: map[int32]bool{}, merges: make(map[pair]merge, len(rules)),
	}
	for _, e := range vocab {
		if err := checkID(e.token, e.id); err != nil {
			return nil, err
		}
		if _, twice := t.names[e.token]; twice {
			return nil, fmt.Errorf("token %.60q is in the vocabulary twice", e.token)
		}
		if err := t.name(e.token, int32(e.id)); err != nil {
			return nil, err
		}
	}
	for rank, r := range rules {
		left, okLeft := t.names[r[0]]
		right, okRight := t.names[r[1]]
		id, ok := t.names[r[0]+r[1]]
		if !okLeft || !okRight || !ok {
			return nil, fmt.Errorf("merge %d, %.60q with %.60q: not all of these and their union are in the vocabulary", rank, r[0], r[1])
		}
		t.merges[pair{left, right}] = merge{int32(rank), id} // of merges that are there twice the last counts
	}
	for i := range t.byteIDs {
		t.byteIDs[i] = -1
		if id, ok := t.names[string(byteRune[i])]; ok {
			t.byteIDs[i] = id
		}
	}
	if err := t.add(addedTokens); err != nil { // last, because pieces of text have no tokens but the vocabulary's
		return nil, err
	}
	for id := range t.tokens {
		t.length = max(t.length, int(id)+1)
	}
	return t, nil
}

func checkID(token string, id int64) error {
	if id < 0 || id >= maxID {
		return fmt.Errorf("token %.60q has id %d, which is not within 0 and %d", token, id, maxID-1)
	}
	return nil
}

// name gives an id to a token.
func (t *Tokenizer) name(token string, id int32) error {
	if _, taken := t.tokens[id]; taken {
		return fmt.Errorf("two tokens have id %d", id)
	}
	t.tokens[id], t.names[token] = tokenBytes(token), id
	return nil
}

// add makes matchers of the added tokens, and names those that the vocabulary lacks.
func (t *Tokenizer) add(tokens []addedToken) error {
	var first, second []added
	for _, a := range tokens {
		if a.Content == "" {
			return fmt.Errorf("added token %d is empty", a.ID)
		}
		if err := checkID(a.Content, a.ID); err != nil {
			return fmt.Errorf("added %w", err)
		}
		if a.SingleWord || a.LStrip || a.RStrip {
			return fmt.Errorf("added token %.60q: single_word, lstrip and rstrip are not supported", a.Content)
		}
		id := int32(a.ID)
		if known, ok := t.names[a.Content]; !ok {
			if err := t.name(a.Content, id); err != nil {
				return err
			}
		} else if known != id {
			return fmt.Errorf("added token %.60q has id %d, but the vocabulary says %d", a.Content, id, known)
		}
		if a.Special {
			t.special[id] = true
		}
		if a.Normalized == nil && !a.Special || a.Normalized != nil && *a.Normalized {
			second = append(second, added{a.Content, id})
		} else {
			first = append(first, added{a.Content, id})
		}
	}
	t.first, t.second = newMatcher(first), newMatcher(second)
	return nil
}
