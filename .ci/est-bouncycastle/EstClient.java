import java.io.ByteArrayInputStream;
import java.io.FileReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.Base64;
import java.util.Scanner;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.est.ESTException;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.est.HttpAuth;
import org.bouncycastle.est.jcajce.JcaHttpAuthBuilder;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.PEMKeyPair;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.util.Store;

/**
 * BouncyCastle's EST client, driven by lines: PORT and CA_FILE as arguments, one command a line on standard input, one answer a line:
 * done, pending SECONDS, refused STATUS TEXT, or failed WHY.
 */
public final class EstClient {
    private final int port;
    private final String caFile;

    private EstClient(int port, String caFile) {
        this.port = port;
        this.caFile = caFile;
    }

    public static void main(String[] args) {
        EstClient client = new EstClient(Integer.parseInt(args[0]), args[1]);
        Scanner lines = new Scanner(System.in, StandardCharsets.UTF_8);
        while (lines.hasNextLine()) System.out.println(client.answer(lines.nextLine().split(" ")));
    }

    private String answer(String[] words) {
        try {
            return run(words);
        } catch (ESTException refused) {
            return "refused " + refused.getStatusCode() + " " + refused.getMessage().replaceAll("\\s+", " ");
        } catch (Exception cause) {
            return "failed " + cause.toString().replaceAll("\\s+", " ");
        }
    }

    private String run(String[] words) throws Exception {
        switch (words[0]) {
            case "cacerts":
                write(words[1], service(null, null).getCACerts().getCertificateStore());
                return "done";
            case "csrattrs":
                return "done " + (service(null, words.length > 1 ? words[1] : null).getCSRAttributes().hasAttributesResponse() ? "attributes" : "none");
            case "enroll":
                return enrolled(service(null, null).simpleEnroll(false, request(words[3]), basic(words[1], words[2])), words[4], null);
            case "reenroll":
                return enrolled(service(keys(words[1], words[2]), null).simpleEnroll(true, request(words[3]), null), words[4], null);
            case "serverkeygen":
                return enrolled(
                    service(null, null).simpleEnrollWithServersideCreation(request(words[3]), basic(words[1], words[2])), words[4], words[5]);
            default:
                return "failed unknown command";
        }
    }

    private ESTService service(KeyManager[] keys, String label) throws Exception {
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        roots.setCertificateEntry("ca", certificate(caFile));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);
        JsseESTServiceBuilder builder = new JsseESTServiceBuilder("localhost", port, (X509TrustManager) trust.getTrustManagers()[0]);
        if (keys != null) builder.withKeyManagers(keys);
        if (label != null) builder.withLabel(label);
        return builder.withTimeout(60_000).build();
    }

    private static HttpAuth basic(String user, String password) throws Exception {
        return new JcaHttpAuthBuilder(user, password.toCharArray()).setProvider(new BouncyCastleProvider()).build();
    }

    private static KeyManager[] keys(String certificateFile, String keyFile) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        store.setKeyEntry("device", privateKey(keyFile), new char[0], new Certificate[] {certificate(certificateFile)});
        KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        factory.init(store, new char[0]);
        return factory.getKeyManagers();
    }

    private static PrivateKey privateKey(String file) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(file))) {
            Object read = parser.readObject();
            PrivateKeyInfo info = read instanceof PEMKeyPair ? ((PEMKeyPair) read).getPrivateKeyInfo() : (PrivateKeyInfo) read;
            return new JcaPEMKeyConverter().getPrivateKey(info);
        }
    }

    private static Certificate certificate(String file) throws Exception {
        return CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(Files.readAllBytes(Path.of(file))));
    }

    private static PKCS10CertificationRequest request(String file) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(file))) {
            return (PKCS10CertificationRequest) parser.readObject();
        }
    }

    private static String enrolled(EnrollmentResponse response, String file, String keyFile) throws Exception {
        if (!response.isCompleted()) return "pending " + Math.max(0, (response.getNotBefore() - System.currentTimeMillis()) / 1000);
        write(file, response.getStore());
        if (keyFile != null) Files.writeString(Path.of(keyFile), pem("PRIVATE KEY", response.getPrivateKeyInfo().getEncoded()));
        return "done";
    }

    private static void write(String file, Store<X509CertificateHolder> certificates) throws Exception {
        StringBuilder text = new StringBuilder();
        for (X509CertificateHolder each : certificates.getMatches(null)) text.append(pem("CERTIFICATE", each.getEncoded()));
        Files.writeString(Path.of(file), text);
    }

    private static String pem(String label, byte[] der) {
        String base64 = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(der);
        return "-----BEGIN " + label + "-----\n" + base64 + "\n-----END " + label + "-----\n";
    }
}
