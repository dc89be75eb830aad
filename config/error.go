package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is a mistake in a configuration file. Its text has several lines: what is wrong and where, the line itself, carets
// under the place, and what is allowed.
type Error struct {
	File    string
	Line    int    // from 1
	Column  int    // in characters, from 1; one past the last character for the end of the line
	Width   int    // characters marked, at least 1, all on Line
	Source  string // the line as the file has it
	Key     string // the key concerned, as in "training.learning_rate"; "" where the file cannot be parsed
	Problem string // what is wrong
	Allowed string // what is allowed or what to do, "" where Problem says it
}

// shownColumns is how much of a long line an Error shows.
const shownColumns = 100

// How much of a name, a value and the library's message an Error shows, in characters.
const (
	nameLimit    = 200
	valueLimit   = 60
	messageLimit = 200
)

// Error is the whole message, over several lines and without a final newline.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s\n", e.File, e.Line, e.Column, e.Problem)
	line, caret, width := e.excerpt()
	number := fmt.Sprintf("%5d", e.Line)
	fmt.Fprintf(&b, "%s | %s\n", number, line)
	fmt.Fprintf(&b, "%s | %s%s", strings.Repeat(" ", len(number)), strings.Repeat(" ", caret), strings.Repeat("^", width))
	if e.Allowed != "" {
		b.WriteString("\nallowed: " + e.Allowed)
	}
	return b.String()
}

// excerpt is the line as it is safe to print, cut to shownColumns around the marked place, with the place's columns in it.
func (e *Error) excerpt() (line string, caret, width int) {
	var cells []rune
	end := -1
	for i, r := range []rune(e.Source) {
		switch i {
		case e.Column - 1:
			caret = len(cells)
		case e.Column - 1 + e.Width:
			end = len(cells)
		}
		cells = append(cells, []rune(printable(r))...)
	}
	if n := utf8.RuneCountInString(e.Source); e.Column-1 >= n {
		caret = len(cells)
	}
	if end < 0 {
		end = max(len(cells), caret+1)
	}
	first := 0
	if caret >= shownColumns {
		first = caret - shownColumns/2
	}
	last := min(len(cells), first+shownColumns)
	width = max(1, min(end, first+shownColumns)-caret)
	line = string(cells[min(first, last):last])
	caret -= first
	if first > 0 {
		line, caret = "…"+line, caret+1
	}
	if last < len(cells) {
		line += "…"
	}
	return line, caret, width
}

// printable is a character as a terminal may show it: tabs become spaces, and what a terminal would obey is spelled out.
func printable(r rune) string {
	switch {
	case r == '\t':
		return "    "
	case r == utf8.RuneError:
		return "�"
	case r < 0x80 && unicode.IsControl(r):
		return fmt.Sprintf(`\x%02x`, r)
	case !unicode.IsPrint(r):
		return fmt.Sprintf(`\u%04x`, r)
	}
	return string(r)
}

// shown is a text from outside as it is safe to print on one line, cut after so many characters.
func shown(text string, limit int) string {
	var b strings.Builder
	for i, r := range []rune(text) {
		if i == limit {
			b.WriteString("…")
			break
		}
		if r == '\n' {
			b.WriteString("⏎")
			continue
		}
		b.WriteString(printable(r))
	}
	return b.String()
}

// errorAt is an Error about text[s.start:s.end], or the part of it that lies on its first line.
func errorAt(file, text string, s span, p problem) *Error {
	start := min(max(s.start, 0), len(text))
	for start > 0 && start < len(text) && !utf8.RuneStart(text[start]) {
		start--
	}
	from := strings.LastIndexByte(text[:start], '\n') + 1
	to := len(text)
	if n := strings.IndexByte(text[start:], '\n'); n >= 0 {
		to = start + n
	}
	line := strings.TrimSuffix(text[from:to], "\r")
	start = min(start, from+len(line))
	end := min(max(s.end, start), from+len(line))
	return &Error{
		File:    file,
		Line:    strings.Count(text[:from], "\n") + 1,
		Column:  utf8.RuneCountInString(text[from:start]) + 1,
		Width:   max(1, utf8.RuneCountInString(text[start:end])),
		Source:  line,
		Key:     p.key,
		Problem: p.text,
		Allowed: p.allowed,
	}
}
