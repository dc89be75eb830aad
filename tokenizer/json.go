package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// strict decodes one JSON value and refuses keys that v does not have.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return plainly(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more behind the JSON value")
	}
	return nil
}

// plainly says what is wrong with a file rather than with the Go type it is read into.
func plainly(err error) error {
	var wrong *json.UnmarshalTypeError
	var broken *json.SyntaxError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return fmt.Errorf("it is a JSON %.20s, not an object", wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Errorf("%s cannot be a JSON %.20s", wrong.Field, wrong.Value)
	case errors.As(err, &broken):
		return fmt.Errorf("%w (byte %d)", err, broken.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON ends too early")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// entry is a token of a vocabulary, as the file spells it, with its id.
type entry struct {
	token string
	id    int64
}

// vocabulary is {"token": id, …} in the file's order.
type vocabulary []entry

// UnmarshalJSON reads the object by hand: the general decoder takes several times as long for 50,000 tokens.
func (v *vocabulary) UnmarshalJSON(data []byte) error {
	s := scanner(data)
	if !s.take('{') {
		return errors.New("vocab is not an object of tokens and ids")
	}
	*v = make(vocabulary, 0, bytes.Count(data, []byte(":")))
	for !s.take('}') {
		s.take(',')
		token, ok := s.text()
		if !ok {
			return errors.New("vocab has a token that cannot be read")
		}
		s.take(':')
		id, ok := s.number()
		if !ok {
			return fmt.Errorf("vocab: the id of token %.60q is no whole number", token)
		}
		*v = append(*v, entry{token, id})
	}
	return nil
}

// mergeRule is two tokens that merge.
type mergeRule [2]string

// mergeRules are merges in their order, each written "left right" or ["left", "right"].
type mergeRules []mergeRule

// UnmarshalJSON reads the list by hand, for the reason of vocabulary.
func (m *mergeRules) UnmarshalJSON(data []byte) error {
	s := scanner(data)
	if !s.take('[') {
		return errors.New("merges is not a list")
	}
	for !s.take(']') {
		s.take(',')
		var r mergeRule
		var ok bool
		if s.take('[') {
			var okLeft, okRight bool
			r[0], okLeft = s.text()
			s.take(',')
			r[1], okRight = s.text()
			ok = okLeft && okRight && s.take(']')
		} else {
			var line string
			if line, ok = s.text(); ok {
				r, ok = splitMerge(line)
			}
		}
		if !ok {
			return fmt.Errorf("merge %d is not two tokens", len(*m))
		}
		*m = append(*m, r)
	}
	return nil
}

func splitMerge(line string) (mergeRule, bool) {
	left, right, ok := strings.Cut(line, " ")
	return mergeRule{left, right}, ok && !strings.Contains(right, " ")
}

// scanner is the rest of a JSON text that is known to be well-formed.
type scanner string

func (s *scanner) skipBlanks() {
	i := 0
	for i < len(*s) && ((*s)[i] == ' ' || (*s)[i] == '\n' || (*s)[i] == '\t' || (*s)[i] == '\r') {
		i++
	}
	*s = (*s)[i:]
}

// take skips c where it comes next.
func (s *scanner) take(c byte) bool {
	s.skipBlanks()
	if *s == "" || (*s)[0] != c {
		return false
	}
	*s = (*s)[1:]
	return true
}

func (s *scanner) text() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	rest, escaped := string(*s), false
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			*s = scanner(rest[i+1:])
			if !escaped {
				return rest[:i], true
			}
			var text string
			err := json.Unmarshal([]byte(`"`+rest[:i]+`"`), &text)
			return text, err == nil
		}
	}
	return "", false
}

func (s *scanner) number() (int64, bool) {
	s.skipBlanks()
	end := strings.IndexAny(string(*s), ",} \t\r\n")
	if end < 0 {
		return 0, false
	}
	word := string((*s)[:end])
	*s = (*s)[end:]
	n, err := strconv.ParseInt(word, 10, 64)
	return n, err == nil || errors.Is(err, strconv.ErrRange) // the check of ids refuses the extremes
}
