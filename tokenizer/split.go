package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// class is a character's part in GPT-2's splitting pattern.
type class int

const (
	other class = iota
	letter
	number
	space
)

func classOf(r rune) class {
	switch {
	case r < utf8.RuneSelf:
		switch {
		case 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z':
			return letter
		case '0' <= r && r <= '9':
			return number
		case r == ' ' || '\t' <= r && r <= '\r':
			return space
		}
		return other
	case unicode.IsSpace(r): // White_Space
		return space
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	}
	return other
}

// pieceEnd is where the first piece of text ends, by GPT-2's pattern
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// written as a scanner because Go's expressions have no lookahead. text is not empty.
func pieceEnd(text string) int {
	if text[0] == '\'' {
		for _, c := range [...]string{"s", "t", "re", "ve", "m", "ll", "d"} {
			if len(text) > len(c) && text[1:1+len(c)] == c {
				return 1 + len(c)
			}
		}
	}
	r, n := utf8.DecodeRuneInString(text)
	first := classOf(r)
	if first == space {
		if r == ' ' && len(text) > 1 {
			if next, size := utf8.DecodeRuneInString(text[1:]); classOf(next) != space {
				return runEnd(text, 1+size, classOf(next))
			}
		}
		end, last := n, 0
		for end < len(text) {
			r, size := utf8.DecodeRuneInString(text[end:])
			if classOf(r) != space {
				if last > 0 { // the run gives its last character back to what follows
					return last
				}
				break
			}
			last = end
			end += size
		}
		return end
	}
	return runEnd(text, n, first)
}

// runEnd is where the run of one class that goes on at from ends.
func runEnd(text string, from int, c class) int {
	for from < len(text) {
		r, size := utf8.DecodeRuneInString(text[from:])
		if classOf(r) != c {
			break
		}
		from += size
	}
	return from
}
