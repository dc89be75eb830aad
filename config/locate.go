package config

import (
	"fmt"

	"github.com/BurntSushi/toml"
)

// maxDepth bounds how deeply arrays, inline tables and dotted keys may nest, and maxKey the bytes of a key, so that the memory
// for a hostile file stays in proportion to it. The configuration needs two levels and 27 bytes.
const (
	maxDepth = 8
	maxKey   = 64
)

// span is a piece of the file, in bytes.
type span struct{ start, end int }

// place is where a key and its value stand. A table's value is its name.
type place struct{ key, value span }

// locator finds the places of keys and values in a TOML file, which the TOML library keeps to itself. It reads only as much
// of the grammar as it takes to step over every value, and leaves it to the library to refuse a broken file.
type locator struct {
	text    string
	at      int
	places  map[string]place // by toml.Key.String(), array elements with "[i]" appended
	refused *span            // the first thing beyond maxDepth or maxKey
}

// locate is the place of every key of the file, and what is nested too deeply or too long to be read, nil where nothing is.
func locate(text string) (map[string]place, *span) {
	l := &locator{text: text, places: map[string]place{}}
	var table []string
	for l.blank(); l.at < len(text) && l.refused == nil; l.blank() {
		if text[l.at] == '[' {
			l.at++
			l.skip('[')
			table = l.header()
		} else {
			l.pair(table, 0)
		}
		for l.at < len(text) && text[l.at] != '\n' {
			l.at++
		}
	}
	return l.places, l.refused
}

// header reads the name of a table up to its bracket.
func (l *locator) header() []string {
	parts, spans := l.key()
	for i := range parts {
		l.record(parts[:i+1], spans[i], spans[i])
	}
	return parts
}

// pair reads "key = value" inside a table.
func (l *locator) pair(table []string, depth int) bool {
	parts, spans := l.key()
	path := append(append([]string(nil), table...), parts...)
	if len(path) > 2*maxDepth {
		l.refuse(l.at)
	}
	l.space()
	if l.refused != nil || len(parts) == 0 || !l.skip('=') {
		return false
	}
	l.space()
	for i, s := range spans[:len(spans)-1] {
		l.record(path[:len(table)+i+1], s, s)
	}
	last := spans[len(spans)-1]
	name := toml.Key(path).String()
	l.record(path, last, span{l.at, l.at})
	v := l.value(path, name, depth)
	if p := l.places[name]; p.key == last {
		p.value = v
		l.places[name] = p
	}
	return true
}

// record notes a place unless the key has one already.
func (l *locator) record(path []string, key, value span) {
	name := toml.Key(path).String()
	if _, ok := l.places[name]; !ok {
		l.places[name] = place{key, value}
	}
}

// key reads a bare, quoted or dotted key.
func (l *locator) key() (parts []string, spans []span) {
	for {
		l.space()
		start := l.at
		var part string
		if l.at < len(l.text) && (l.text[l.at] == '"' || l.text[l.at] == '\'') {
			l.quoted()
			part = unquote(l.text[start:l.at])
		} else {
			for l.at < len(l.text) && bareKey(l.text[l.at]) {
				l.at++
			}
			part = l.text[start:l.at]
			if part == "" {
				return parts, spans
			}
		}
		parts, spans = append(parts, part), append(spans, span{start, l.at})
		if len(parts) > maxDepth || l.at-start > maxKey {
			l.refuse(start)
			return parts, spans
		}
		l.space()
		if !l.skip('.') {
			return parts, spans
		}
	}
}

// value steps over one value and records the elements of arrays and the keys of inline tables.
func (l *locator) value(path []string, name string, depth int) span {
	start := l.at
	if l.at >= len(l.text) {
		return span{start, start}
	}
	switch c := l.text[l.at]; c {
	case '"', '\'':
		l.quoted()
	case '[', '{':
		if depth == maxDepth {
			l.refuse(start)
			return span{start, start + 1}
		}
		l.at++
		end := c + 2 // ']' or '}'
		for i := 0; l.refused == nil; i++ {
			l.blank()
			if l.at >= len(l.text) || l.skip(end) {
				break
			}
			if c == '{' {
				if !l.pair(path, depth+1) {
					break
				}
			} else {
				element := fmt.Sprintf("%s[%d]", name, i)
				v := l.value(path, element, depth+1)
				l.places[element] = place{v, v}
			}
			l.blank()
			if !l.skip(',') {
				l.skip(end)
				break
			}
		}
	default:
		end := l.at
		for l.at < len(l.text) && !endsBare(l.text[l.at]) {
			l.at++
			if c := l.text[l.at-1]; c != ' ' && c != '\t' && c != '\r' {
				end = l.at
			}
		}
		return span{start, end}
	}
	return span{start, l.at}
}

// quoted steps over a string of any of the four kinds.
func (l *locator) quoted() {
	q := l.text[l.at]
	long := l.at+2 < len(l.text) && l.text[l.at+1] == q && l.text[l.at+2] == q
	if !long {
		for l.at++; l.at < len(l.text) && l.text[l.at] != '\n'; l.at++ {
			switch {
			case l.text[l.at] == q:
				l.at++
				return
			case l.text[l.at] == '\\' && q == '"' && l.at+1 < len(l.text) && l.text[l.at+1] != '\n':
				l.at++
			}
		}
		return
	}
	l.at += 3
	for l.at < len(l.text) {
		switch {
		case l.text[l.at] == '\\' && q == '"':
			l.at = min(l.at+2, len(l.text))
		case l.text[l.at] == q && l.at+2 < len(l.text) && l.text[l.at+1] == q && l.text[l.at+2] == q:
			l.at += 3
			for extra := 0; extra < 2 && l.skip(q); extra++ { // quotes that end the text itself
			}
			return
		default:
			l.at++
		}
	}
}

// blank steps over spaces, line ends and comments.
func (l *locator) blank() {
	for l.at < len(l.text) {
		switch l.text[l.at] {
		case ' ', '\t', '\r', '\n':
			l.at++
		case '#':
			for l.at < len(l.text) && l.text[l.at] != '\n' {
				l.at++
			}
		default:
			return
		}
	}
}

func (l *locator) space() {
	for l.at < len(l.text) && (l.text[l.at] == ' ' || l.text[l.at] == '\t') {
		l.at++
	}
}

func (l *locator) skip(c byte) bool {
	if l.at < len(l.text) && l.text[l.at] == c {
		l.at++
		return true
	}
	return false
}

func (l *locator) refuse(at int) {
	if l.refused == nil {
		l.refused = &span{at, at + 1}
	}
}

func bareKey(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

func endsBare(c byte) bool {
	return c == ',' || c == ']' || c == '}' || c == '#' || c == '\n'
}

// unquote is the text of a quoted key.
func unquote(quoted string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+quoted, &v); err != nil {
		return quoted
	}
	return v.K
}
