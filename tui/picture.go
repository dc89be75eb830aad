package tui

import (
	"context"

	"github.com/charmbracelet/colorprofile"
	uv "github.com/charmbracelet/ultraviolet"

	"quartet/picture"
	"quartet/worker/client"
)

// Picture is the frame at the end of a recording as an SVG, of so many columns and lines.
func Picture(ctx context.Context, o Options, width, height int) ([]byte, error) {
	worker, err := o.Open(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	m := newModel(ctx, o)
	defer m.close()
	m.profile = colorprofile.TrueColor
	m.restyle()
	m.width, m.height, m.worker = width, height, worker
	if err := worker.Events(ctx, 0, func(e client.Numbered) error {
		m.events([]client.Numbered{e})
		return nil
	}); err != nil {
		return nil, err
	}
	cells := uv.NewScreenBuffer(width, height)
	uv.NewStyledString(m.View().Content).Draw(cells, cells.Bounds())
	return picture.Still(cells), nil
}
