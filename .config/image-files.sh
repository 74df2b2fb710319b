#!/bin/sh
# Puts together what the image holds (Dockerfile): the service, its packages, node, the libraries that node loads.
# Usage, in a folder with dist/ and production's node_modules/: image-files.sh FOLDER; SOURCE_DATE_EPOCH is the time of every file in it.
set -eu
image=$1
mkdir -p "$image/app" "$image/etc" "$image/var/lib/dpkg/status.d"

# Local mode needs development packages and never runs in production.
rm -rf dist/local dist/local-mode.js*
# Types and maps of strangers' packages: half of their weight, and nothing reads them.
find node_modules \( -name '*.d.ts' -o -name '*.d.cts' -o -name '*.d.mts' -o -name '*.map' \) -delete
# npm would miss them, and from the lock file alone it leaves out what development needs as well.
npm pkg delete devDependencies
npm sbom --sbom-format=cyclonedx --sbom-type=application > sbom.cdx.json
# A random number and the time of day would make each build another one.
node -e '
  const { serialNumber, ...sbom } = JSON.parse(fs.readFileSync("sbom.cdx.json"))
  sbom.metadata.component.name = JSON.parse(fs.readFileSync("package.json")).name
  sbom.metadata.timestamp = new Date(process.env.SOURCE_DATE_EPOCH * 1000).toISOString()
  fs.writeFileSync("sbom.cdx.json", JSON.stringify(sbom, null, 2))'
mv dist node_modules package.json sbom.cdx.json "$image/app"

grep -E '^(root|node):' /etc/passwd > "$image/etc/passwd"
grep -E '^(root|node):' /etc/group > "$image/etc/group"
cp /etc/os-release "$image/etc"
libraries=$(ldd /usr/local/bin/node | grep -o '/[^ ]*')
for file in /usr/local/bin/node $libraries; do cp --parents --dereference "$file" "$image"; done
# Their licences, and what a scanner for vulnerabilities looks for where there is no package manager.
for package in $(for file in $libraries; do dpkg --search "*/${file##*/}"; done | cut -d: -f1 | sort -u); do
  dpkg --status "$package" > "$image/var/lib/dpkg/status.d/$package"
  cp --parents --dereference "/usr/share/doc/$package/copyright" "$image"
done

find "$image" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
