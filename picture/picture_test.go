package picture

import (
	"encoding/xml"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	uv "github.com/charmbracelet/ultraviolet"
)

func frame(at time.Duration, lines ...string) Frame {
	cells := uv.NewScreenBuffer(20, len(lines))
	uv.NewStyledString(strings.Join(lines, "\n")).Draw(cells, cells.Bounds())
	return Frame{at, cells}
}

// TestFilm draws three frames: what they share stands once and always, the rest has its times.
func TestFilm(t *testing.T) {
	film := string(Film([]Frame{
		frame(50*time.Millisecond, "always & <here>", "\x1b[1;31mone\x1b[m"),
		frame(2*time.Second, "always & <here>", "\x1b[7mtwo\x1b[m"),
		frame(3*time.Second, "always & <here>", "\x1b[1;31mone\x1b[m   more"),
	}, 4*time.Second))
	d := xml.NewDecoder(strings.NewReader(film))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("not XML: %v\n%s", err, film)
		}
	}
	if strings.Count(film, "always &amp; &lt;here&gt;") != 1 || strings.Count(film, ">one<") != 1 {
		t.Errorf("what frames share is not drawn once:\n%s", film)
	}
	for _, want := range []string{
		`<g><animate attributeName="visibility" calcMode="discrete" dur="4.0s" repeatCount="indefinite" values="visible;hidden;visible" keyTimes="0;.5000;.7500"/>`,
		`<g visibility="hidden"><animate attributeName="visibility" calcMode="discrete" dur="4.0s" repeatCount="indefinite" values="hidden;visible;hidden" keyTimes="0;.5000;.7500"/>`,
	} {
		if !strings.Contains(film, want) {
			t.Errorf("%s is missing:\n%s", want, film)
		}
	}
	for _, times := range regexp.MustCompile(`keyTimes="([^"]*)"`).FindAllStringSubmatch(film, -1) {
		before := -1.0
		for _, at := range strings.Split(times[1], ";") {
			v, err := strconv.ParseFloat(at, 64)
			if err != nil || v <= before || v > 1 {
				t.Errorf("keyTimes %s", times[1])
			}
			before = v
		}
	}
	if still := string(Still(frame(0, "a").Cells)); strings.Contains(still, "animate") || !strings.Contains(still, ">a<") {
		t.Errorf("a still: %s", still)
	}
}
