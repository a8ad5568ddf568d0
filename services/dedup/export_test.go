package dedup

import "context"

// Round is one round of the keeper.
func (k *Keeper) Round(ctx context.Context) error { return k.round(ctx) }
