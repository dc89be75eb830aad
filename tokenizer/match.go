package tokenizer

import (
	"slices"
	"strings"
)

// added is a token that is split from the text before anything else.
type added struct {
	text string
	id   int32
}

// matcher finds added tokens in a text.
type matcher struct {
	starts [256]bool          // whether a token begins with the byte
	byHead map[string][]added // by their first two bytes, or the only one; the longest first
}

func newMatcher(tokens []added) *matcher {
	m := &matcher{byHead: map[string][]added{}}
	for _, a := range tokens {
		head := a.text[:min(2, len(a.text))]
		m.starts[head[0]] = true
		m.byHead[head] = append(m.byHead[head], a)
	}
	for _, list := range m.byHead {
		slices.SortStableFunc(list, func(a, b added) int { return len(b.text) - len(a.text) })
	}
	return m
}

// next is the leftmost token in text, the longest of those there, and where it stands; at is len(text) for none.
func (m *matcher) next(text string) (at int, found added) {
	for ; at < len(text); at++ {
		if !m.starts[text[at]] {
			continue
		}
		for n := min(2, len(text)-at); n > 0; n-- {
			for _, a := range m.byHead[text[at:at+n]] {
				if strings.HasPrefix(text[at:], a.text) {
					return at, a
				}
			}
		}
	}
	return at, added{}
}

// cut calls plain for what stands between the tokens in text, and token for these.
func (m *matcher) cut(text string, plain func(string), token func(id int32)) {
	for text != "" {
		at, found := m.next(text)
		if at > 0 {
			plain(text[:at])
		}
		if at == len(text) {
			return
		}
		token(found.id)
		text = text[at+len(found.text):]
	}
}
