# Picks the packages named in `wanted` out of requirements.lock, with their hashes.
BEGIN { split(wanted, names, " "); for (i in names) is_wanted[names[i]] }
/^[a-z0-9]/ { split($0, parts, "=="); keep = parts[1] in is_wanted }
keep
