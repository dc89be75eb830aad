// Package tokenizer is byte-level BPE as GPT-2 and Phi use it: tokenizer.json, or vocab.json with merges.txt, to token ids
// and back, equal to the tokenizers library's.
package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Tokenizer turns text into token ids and back. It may be used from several goroutines.
type Tokenizer struct {
	tokens  map[int32]string // what each id stands for, as bytes
	names   map[string]int32 // each token as the vocabulary writes it
	special map[int32]bool
	merges  map[pair]merge
	byteIDs [256]int32 // the token of a single byte, -1 for none
	first   *matcher   // added tokens that are split from the text before the others
	second  *matcher   // those to be found in normalized text, which for want of a normalizer is the text between the first
	length  int
	cache   pieceCache
}

// Encode is the ids of a text. Added tokens in it become their ids, special ones too. Bytes for which the vocabulary has
// no token are left out, which no byte-level vocabulary lacks.
func (t *Tokenizer) Encode(text string) []int32 {
	ids := []int32{}
	token := func(id int32) { ids = append(ids, id) }
	plain := func(text string) { ids = t.encodePlain(ids, text) }
	t.first.cut(text, func(between string) { t.second.cut(between, plain, token) }, token)
	return ids
}

func (t *Tokenizer) encodePlain(ids []int32, text string) []int32 {
	for text != "" {
		end := pieceEnd(text)
		ids = t.encodePiece(ids, text[:end])
		text = text[end:]
	}
	return ids
}

// Decode is the text of ids: their bytes joined, and every ill-formed sequence among them replaced by U+FFFD. Ids without
// a token are left out, and with skipSpecial so are special tokens. Spaces are left as they are, whatever
// clean_up_tokenization_spaces says.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var out strings.Builder
	for _, id := range ids {
		if !skipSpecial || !t.special[id] {
			out.WriteString(t.tokens[id])
		}
	}
	return lossy(out.String())
}

// lossy replaces each maximal ill-formed subsequence by one U+FFFD, as Unicode (chapter 3, U+FFFD substitution) and
// Python's errors="replace" do.
func lossy(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var out strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			n, _ = illFormed(s)
		}
		out.WriteRune(r)
		s = s[n:]
	}
	return out.String()
}

// illFormed is the length of the maximal ill-formed subsequence that s begins with, and whether more bytes could complete it.
func illFormed(s string) (n int, incomplete bool) {
	low, high, want := byte(0x80), byte(0xBF), 0
	switch b := s[0]; {
	case 0xC2 <= b && b <= 0xDF:
		want = 1
	case 0xE0 <= b && b <= 0xEF:
		want = 2
		if b == 0xE0 {
			low = 0xA0
		} else if b == 0xED {
			high = 0x9F
		}
	case 0xF0 <= b && b <= 0xF4:
		want = 3
		if b == 0xF0 {
			low = 0x90
		} else if b == 0xF4 {
			high = 0x8F
		}
	}
	n = 1
	for ; n <= want; n++ {
		if n == len(s) {
			return n, true
		}
		if s[n] < low || s[n] > high {
			return n, false
		}
		low, high = 0x80, 0xBF
	}
	return n, false
}

// Has reports whether a token exists for an id. Models have more rows than their tokenizers have tokens.
func (t *Tokenizer) Has(id int32) bool {
	_, ok := t.tokens[id]
	return ok
}

// Len is the highest id and one.
func (t *Tokenizer) Len() int { return t.length }

// ID is the id of a token as the vocabulary writes it, such as "<|endoftext|>".
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.names[token]
	return id, ok
}

// Token is the bytes that an id stands for, "" where it has no token.
func (t *Tokenizer) Token(id int32) string { return t.tokens[id] }

// IsSpecial reports whether an id is that of a special token, such as end-of-text.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.special[id] }

// Stream decodes ids one at a time and holds back what may yet become a character.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	pending     string
}

// Stream begins a decoding of ids that arrive one at a time.
func (t *Tokenizer) Stream(skipSpecial bool) *Stream { return &Stream{t: t, skipSpecial: skipSpecial} }

// Push takes the next id and returns the text that is now certain. The pieces and Flush together are Decode's text.
func (s *Stream) Push(id int32) string {
	if s.skipSpecial && s.t.special[id] {
		return ""
	}
	s.pending += s.t.tokens[id]
	certain := len(s.pending)
	for at := max(0, len(s.pending)-3); at < len(s.pending); at++ {
		if utf8.RuneStart(s.pending[at]) && s.pending[at] >= utf8.RuneSelf {
			if n, incomplete := illFormed(s.pending[at:]); incomplete && at+n == len(s.pending) {
				certain = at
			}
		}
	}
	out := lossy(s.pending[:certain])
	s.pending = s.pending[certain:]
	return out
}

// Flush returns what Push held back.
func (s *Stream) Flush() string {
	out := lossy(s.pending)
	s.pending = ""
	return out
}
