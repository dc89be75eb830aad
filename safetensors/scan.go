package safetensors

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// scanner reads the little JSON that headers and indexes are made of, in place. It never recurses deeper than the
// formats do, and copies a string only where it holds an escape.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) fail(format string, args ...any) error {
	return fmt.Errorf("byte %d: %s", s.pos, fmt.Sprintf(format, args...))
}

// next skips white space and is the byte that follows, or 0 at the end.
func (s *scanner) next() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) take(c byte) error {
	got := s.next()
	if s.pos == len(s.data) {
		return s.fail("expected %q, found the end", c)
	}
	if got != c {
		return s.fail("expected %q, found %q", c, got)
	}
	s.pos++
	return nil
}

// text reads a string. The result aliases the input unless the string holds an escape.
func (s *scanner) text() ([]byte, error) {
	if err := s.take('"'); err != nil {
		return nil, err
	}
	start, escaped := s.pos, false
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			if !escaped {
				return s.data[start : s.pos-1], nil
			}
			var v string
			if json.Unmarshal(s.data[start-1:s.pos], &v) != nil {
				s.pos = start
				return nil, s.fail("string has an invalid escape")
			}
			return []byte(v), nil
		case c == '\\':
			escaped = true
			s.pos++
		case c < ' ':
			return nil, s.fail("string holds the control character %#02x", c)
		}
	}
	s.pos = start
	return nil, s.fail("string has no end")
}

// count reads a non-negative whole number.
func (s *scanner) count() (int, error) {
	first := s.next()
	start := s.pos
	if first == '-' {
		return 0, s.fail("number is negative")
	}
	n := 0
	for ; s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9'; s.pos++ {
		digit := int(s.data[s.pos] - '0')
		if n > (math.MaxInt-digit)/10 {
			s.pos = start
			return 0, s.fail("number overflows 64 bits")
		}
		n = 10*n + digit
	}
	if s.pos == start {
		return 0, s.fail("expected a number")
	}
	if first == '0' && s.pos > start+1 {
		s.pos = start
		return 0, s.fail("number starts with 0")
	}
	if s.pos < len(s.data) {
		switch s.data[s.pos] {
		case '.', 'e', 'E':
			s.pos = start
			return 0, s.fail("number is not whole")
		}
	}
	return n, nil
}

// list reads what stands between open and close, calling item at the start of each element.
func (s *scanner) list(open, close byte, item func() error) error {
	if err := s.take(open); err != nil {
		return err
	}
	if s.next() == close {
		s.pos++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if s.next() != ',' {
			return s.take(close)
		}
		s.pos++
	}
}

// object reads an object, calling field after each key and its colon.
func (s *scanner) object(field func(key []byte) error) error {
	return s.list('{', '}', func() error {
		key, err := s.text()
		if err != nil {
			return err
		}
		if err := s.take(':'); err != nil {
			return err
		}
		return field(key)
	})
}

func (s *scanner) array(item func() error) error { return s.list('[', ']', item) }

// quote shows a name out of an untrusted file on one line, shortened where it is very long.
func quote(name string) string {
	const most = 120
	if len(name) > most {
		return fmt.Sprintf("%.*q… (%d bytes)", most, name, len(name))
	}
	return fmt.Sprintf("%q", name)
}

// skip reads any value that nests no deeper than depth.
func (s *scanner) skip(depth int) error {
	if depth == 0 {
		return s.fail("nested too deeply")
	}
	switch s.next() {
	case '"':
		_, err := s.text()
		return err
	case '{':
		return s.object(func([]byte) error { return s.skip(depth - 1) })
	case '[':
		return s.array(func() error { return s.skip(depth - 1) })
	}
	start := s.pos
	for s.pos < len(s.data) && !strings.ContainsRune(" \t\r\n,]}", rune(s.data[s.pos])) {
		s.pos++
	}
	if !json.Valid(s.data[start:s.pos]) {
		s.pos = start
		return s.fail("expected a value")
	}
	return nil
}
