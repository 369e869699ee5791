package image

import (
	"context"

	"github.com/longhaul-project/longhaul/internal/nbd"
)

// remote is an export of an NBD server.
type remote struct{ client *nbd.Client }

// openRemote connects to the server that a URI names.
func openRemote(ctx context.Context, uri string) (*Image, error) {
	target, err := nbd.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	client, err := nbd.Dial(ctx, target)
	if err != nil {
		return nil, err
	}
	return &Image{format: "nbd", source: remote{client}}, nil
}

func (r remote) next(ctx context.Context, from int64) (int64, []byte, error) {
	return r.client.Next(ctx, from)
}

func (r remote) size() int64 { return r.client.Size() }

func (r remote) Close() error { return r.client.Close() }
