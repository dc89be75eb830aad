package main

import (
	"encoding/json"
	"io"

	"quartet/visible"
)

// printJSON writes a value as indented JSON in which nothing steers a terminal.
func printJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(visible.JSON(text), '\n'))
	return err
}

// visibleWriter makes everything that is written to it safe for a terminal.
type visibleWriter struct{ io.Writer }

// Write shows p.
func (w visibleWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, visible.Text(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
