package proto

import (
	"encoding/json"
	"errors"
	"fmt"
)

// upgradeStep raises the members of a record by one version. It changes what the next version holds in
// another way and leaves everything else, also what it does not know.
type upgradeStep func(members map[string]json.RawMessage) error

// upgrades[n] raises version n+1 to n+2. Version 1 is the first there is, so there is no step yet; a
// version that changes a member's meaning adds one here, and its golden record to testdata/records.
var upgrades = [PersistenceVersion - 1]upgradeStep{}

// raise raises a record of an older version to the version after the last of steps, one by one. A
// version below 1 is left to the caller, who refuses it.
func raise(data []byte, version int, steps []upgradeStep) ([]byte, error) {
	if version < 1 || version > len(steps) {
		return data, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, errors.New("no object")
	}
	for ; version <= len(steps); version++ {
		if err := steps[version-1](members); err != nil {
			return nil, fmt.Errorf("upgrade from version %d: %w", version, err)
		}
		members["@persistence_version"] = fmt.Appendf(nil, "%d", version+1)
	}
	return json.Marshal(members)
}
