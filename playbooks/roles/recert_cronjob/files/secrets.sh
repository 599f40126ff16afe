umask 077
id -un >/dev/null || { echo "the image has no user of this number in /etc/passwd: ssh would not run" >&2; exit 2; }
mkdir -p /private/keys /private/secrets
for file in /files/*; do
  to=/private/$(basename "$file" | sed 's:__:/:g')
  mkdir -p "$(dirname "$to")"
  cat "$file" >"$to"
done
